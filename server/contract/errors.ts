import { brief, plain, StrictJsonError } from './strict-json.ts';

export interface ErrorKind {
  /** Of HTTP. */
  status: number;
  /** When the same request is worth another try; null where something must change first. */
  retryAfterSeconds: number | null;
}

const final = (status: number): ErrorKind => ({ status, retryAfterSeconds: null });
const passing = (status: number, retryAfterSeconds = 1): ErrorKind => ({ status, retryAfterSeconds });

/**
 * The catalogue of refusals of the admin API and of the push endpoint. Codes are stable; decide on them, never on
 * messages.
 */
export const ERRORS = {
  // The request itself
  malformed_request: final(400),
  malformed_safetensors: final(400),
  malformed_config: final(400),
  missing_config: final(400),
  invalid_name: final(400),
  digest_mismatch: final(400),
  unauthenticated: final(401),
  forbidden: final(403),
  route_not_found: final(404),
  adapter_not_found: final(404),
  revision_not_found: final(404),
  method_not_allowed: final(405),
  request_timeout: final(408),
  step_not_newer: final(409),
  stale_fence: final(409),
  superseded: final(409),
  adapter_deleting: final(409),
  not_push_source: final(409),
  length_required: final(411),
  precondition_failed: final(412),
  body_too_large: final(413),
  unsupported_media_type: final(415),
  unsupported_encoding: final(415),
  // The adapter does not fit the base model or this server
  unsupported_adapter_feature: final(422),
  unsupported_dtype: final(422),
  unknown_module: final(422),
  unexpected_tensor: final(422),
  missing_tensor: final(422),
  shape_mismatch: final(422),
  rank_mismatch: final(422),
  rank_too_large: final(422),
  non_finite: final(422),
  no_modules: final(422),
  zero_effect: final(422),
  verification_failed: final(422),
  too_many_requests: passing(429),
  quota_exceeded: passing(429, 60),
  header_too_large: final(431),
  internal: final(500),
  pod_failed: final(502),
  no_capacity: passing(503),
  not_durable: passing(503),
  no_pods: passing(503),
  not_leader: passing(503),
  engine_away: passing(503),
  shutting_down: passing(503, 5),
  timeout: passing(504),
};

export type ErrorCode = keyof typeof ERRORS;

export interface ErrorDetail {
  /** Which tensor, config key or header is wrong. */
  field?: string;
  expected?: unknown;
  actual?: unknown;
  cause?: unknown;
  /** Where it is known better than the catalogue does. */
  retryAfterSeconds?: number;
}

/** A refusal that reaches a client as `{"error": {code, message, field, expected, actual}}`. */
export class LorikeetError extends Error {
  readonly code: ErrorCode;
  readonly field: string | undefined;
  readonly expected: unknown;
  readonly actual: unknown;
  readonly #retryAfterSeconds: number | undefined;

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    super(message, { cause: detail.cause });
    this.name = 'LorikeetError';
    this.code = code;
    this.field = detail.field;
    this.expected = detail.expected;
    this.actual = detail.actual;
    this.#retryAfterSeconds = detail.retryAfterSeconds;
  }

  get status(): number {
    return ERRORS[this.code].status;
  }

  get retryAfterSeconds(): number | null {
    return this.#retryAfterSeconds ?? ERRORS[this.code].retryAfterSeconds;
  }

  toJSON(): { error: Record<string, unknown> } {
    const { code, message, field, expected, actual } = this;
    return { error: { code, message, field, expected, actual } };
  }
}

/** In words, or in words and as the value that a program reads. */
export type Want = string | { words: string; value: unknown };

/** The refusal of one value; `got` may be a stranger's, and undefined where there is none. */
export function expected(code: ErrorCode, field: string, want: Want, got: unknown): LorikeetError {
  const { words, value } = typeof want === 'string' ? { words: want, value: want } : want;
  const named = plain(field, 256);
  const actual = brief(got) ?? null;
  const received = got === undefined ? 'nothing' : JSON.stringify(actual);
  const message = `Expected ${words} for ${named} but received ${received}`;
  return new LorikeetError(code, message, { field: named, expected: value, actual });
}

/** `error` of parseStrictJson as a refusal of `what`; any other is thrown on. */
export function notStrictJson(code: ErrorCode, what: string, error: unknown): LorikeetError {
  if (!(error instanceof StrictJsonError)) throw error;
  const field = plain(String(error.path[0] ?? what), 256);
  const detail = { field, expected: 'strict JSON', actual: error.reason, cause: error };
  return new LorikeetError(code, `${what} is not valid JSON: ${error.message}`, detail);
}
