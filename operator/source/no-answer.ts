import { Retryable } from './types.ts';

/**
 * One sentence for whatever keeps a store from answering: by the difference between refused, reset, silent and no HTTP,
 * anybody who may write a LoraAdapter could find out which ports are open where only the operator gets to. `code` is for
 * the operator's own log.
 */
export function noAnswer(code: string): Retryable {
  return new Retryable('SourceUnreachable', 'The object store does not answer.', { code });
}
