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

/** The chain of causes, outermost first. */
export function causesOf(error: unknown): unknown[] {
  const chain = [error];
  for (let current = error; current instanceof Error && current.cause !== undefined && chain.length < 8; ) {
    current = current.cause;
    chain.push(current);
  }
  return chain;
}

/** The innermost message of a chain of causes: for a refused connection the outer ones say nothing. */
export function rootMessage(error: unknown): string {
  const current = causesOf(error).at(-1);
  if (!(current instanceof Error)) return String(current);
  if (TIMEOUTS.has(current.name)) return 'no answer in time';
  return current.message || current.name;
}
