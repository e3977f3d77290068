import { Retryable, SourceError } from './types.ts';

/**
 * One sentence for whatever keeps a source from answering: by the difference between refused, reset, silent and no HTTP,
 * anybody who may write a LoraAdapter could find out which ports are open where only the operator gets to. `code` is for
 * the operator's own log.
 */
export function noAnswer(code: string): Retryable {
  return new Retryable('SourceUnreachable', 'The source does not answer.', { code });
}

/** Of TLS: who signed the certificate of the source is not known. */
const UNTRUSTED = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

/** What became of a request that got no answer. A refusal of the guard stays one. */
export function noAnswerOf(error: unknown, name: string): SourceError {
  const refused = causesOf(error).find((cause) => cause instanceof SourceError);
  if (refused) return refused;
  const code = codeOf(error);
  if (!UNTRUSTED.has(code)) return noAnswer(code);
  const way = 'Put its CA under ca.crt into the Secret that spec.source names.';
  return new Retryable('SourceUnreachable', `The source is not trusted (${code}): ${name}. ${way}`);
}

/** A code of the system such as ECONNREFUSED; never text. */
function codeOf(error: unknown): string {
  const codes = causesOf(error).map((cause) => (cause as NodeJS.ErrnoException).code);
  return codes.find((code) => typeof code === 'string' && /^[A-Z_]{3,40}$/.test(code)) ?? 'no answer';
}

function causesOf(error: unknown): unknown[] {
  const causes: unknown[] = [];
  let current = error;
  while (current instanceof Error && causes.length < 8) {
    causes.push(current);
    current = current.cause;
  }
  return causes;
}
