/** The pod gave no answer that can be read: no connection, a timeout, a cut stream, or bytes that are not this API. */
export class PodUnreachable extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'PodUnreachable';
  }
}

/** The innermost message of a chain of causes: for a refused connection the outer ones say nothing. */
export function rootMessage(error: unknown): string {
  let current = error;
  for (let depth = 0; depth < 8; depth += 1) {
    if (!(current instanceof Error) || current.cause === undefined) break;
    current = current.cause;
  }
  if (current instanceof DOMException && current.name === 'TimeoutError') return 'no answer in time';
  if (!(current instanceof Error)) return String(current);
  return current.message || current.name;
}
