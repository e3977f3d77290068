import { type ErrorCode, LorikeetError } from '../../../server/contract/errors.ts';

/**
 * What happens to a call instead of what should: no answer, a cut connection, a refusal. Of the call's body the pod
 * takes `afterBytes` first: by default none, and all before a refusal, as a pod that checks what it was sent.
 */
export type Fault =
  | { kind: 'hang' | 'reset'; afterBytes?: number }
  | { kind: 'refuse'; error: Error; afterBytes?: number };

/** A refusal in the words of the catalogue. */
export function refusal(code: ErrorCode): Extract<Fault, { kind: 'refuse' }> {
  return { kind: 'refuse', error: new LorikeetError(code, 'scripted') };
}

/** How much of a body the pod takes before the fault. */
export function bytesBefore({ kind, afterBytes }: Fault): number {
  return afterBytes ?? (kind === 'refuse' ? Number.POSITIVE_INFINITY : 0);
}
