/**
 * Why a call of the API server did not succeed. `status` is the HTTP status, or 0 where no whole reply came; `reason`
 * is the server's own word (`NotFound`, `Conflict`, `Expired`, …) or one of Unreachable, Timeout, TooLarge, Malformed,
 * NotLeading.
 */
export class ApiError extends Error {
  readonly status: number;
  readonly reason: string;
  readonly retryAfterMs: number | null;

  constructor(
    failure: { status: number; reason: string; retryAfterMs?: number | null },
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'ApiError';
    this.status = failure.status;
    this.reason = failure.reason;
    this.retryAfterMs = failure.retryAfterMs ?? null;
  }

  /** Whether the same call may succeed later without anybody changing anything. */
  get retryable(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export function isApiError(error: unknown, status: number): error is ApiError {
  return error instanceof ApiError && error.status === status;
}

const MESSAGE_LENGTH_MAX = 512;
const RETRY_AFTER_MS_MAX = 60_000;

/** The error that a reply of status ≥ 400 means; its body is a `Status` object, or whatever a proxy in between said. */
export function errorFromReply(call: string, status: number, retryAfter: unknown, body: string): ApiError {
  const told = parseStatus(body);
  const seconds = Number(retryAfter ?? told?.details?.retryAfterSeconds ?? Number.NaN);
  const retryAfterMs = Number.isFinite(seconds)
    ? Math.min(Math.max(seconds, 0) * 1000, RETRY_AFTER_MS_MAX)
    : null;
  const message = (told?.message ?? body).slice(0, MESSAGE_LENGTH_MAX);
  return new ApiError(
    { status, reason: told?.reason ?? `Http${status}`, retryAfterMs },
    `${call}: ${status} ${message}`,
  );
}

interface StatusReply {
  reason?: string;
  message?: string;
  details?: { retryAfterSeconds?: number };
}

function parseStatus(body: string): StatusReply | null {
  if (!body.startsWith('{')) return null;
  try {
    return JSON.parse(body) as StatusReply;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}
