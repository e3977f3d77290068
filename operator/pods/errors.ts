/** The pod gave no answer that can be read: no connection, a timeout, a cut stream, or bytes that are not this API. */
export class PodUnreachable extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'PodUnreachable';
  }
}

/** Of AbortSignal.timeout and of undici. */
const TIMEOUTS: ReadonlySet<string> = new Set([
  'TimeoutError',
  'HeadersTimeoutError',
  'BodyTimeoutError',
  'ConnectTimeoutError',
]);

/** The innermost message of a chain of causes: for a refused connection the outer ones say nothing. */
export function rootMessage(error: unknown): string {
  let current = error;
  for (let depth = 0; depth < 8; depth += 1) {
    if (!(current instanceof Error) || current.cause === undefined) break;
    current = current.cause;
  }
  if (!(current instanceof Error)) return String(current);
  if (TIMEOUTS.has(current.name)) return 'no answer in time';
  return current.message || current.name;
}
