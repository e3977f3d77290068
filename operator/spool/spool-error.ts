export type SpoolErrorCode =
  /** No room: what is there is pinned, or being written. */
  'full' | 'corrupt' | 'gone' | 'not_this_digest';

export class SpoolError extends Error {
  readonly code: SpoolErrorCode;

  constructor(code: SpoolErrorCode, message: string) {
    super(message);
    this.name = 'SpoolError';
    this.code = code;
  }
}
