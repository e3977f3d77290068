import { LorikeetError } from '../../../server/contract/errors.ts';
import type { RevisionRecord } from '../../api/lora-adapter.ts';
import type { Spool } from '../../spool/spool.ts';
import type { Draft } from '../draft.ts';
import { observe } from '../plan.ts';

/** What was desired before and somebody still has the bytes of, newest first. */
export function keptEarlier(
  { record, placement, servedName }: Draft,
  spool: Pick<Spool, 'open'>,
): RevisionRecord[] {
  const isHeld = (digest: string) =>
    placement.members.some((pod) => ['held', 'current'].includes(observe(pod, servedName, digest)));
  return record.previous.filter(({ digest }) => isHeld(digest) || spool.open(digest) !== null);
}

/**
 * The revision that a rollback leads to. Asked again without `to`, it stays: a reply may have been lost. Pure.
 *
 *   desired             | to             | answer
 *   --------------------|----------------|-----------------------------------------------------
 *   none                | anything       | revision_not_found
 *   D, by a push        | none           | the newest earlier one that is kept
 *   D, by a rollback    | none           | D
 *   D                   | digest or step | D or the newest earlier one that has it
 */
export function requireEarlier(
  { desired, earlier }: { desired: RevisionRecord | null; earlier: readonly RevisionRecord[] },
  to: string | number | undefined,
): RevisionRecord {
  const known = desired === null ? [] : [desired, ...earlier];
  const found =
    to === undefined
      ? known[desired?.rollback === undefined ? 1 : 0]
      : known.find(({ digest, step }) => digest === to || step === to);
  if (found !== undefined) return found;
  const kept = earlier.map(({ digest, step }) => ({ revision: digest, step }));
  const words = kept.map(({ revision, step }) => (step === null ? revision : `${revision} (step ${step})`));
  const message = `Expected an earlier revision that is kept but received ${to ?? 'nothing'}; kept: ${words.join(', ') || 'none'}`;
  throw new LorikeetError('revision_not_found', message, { field: 'to', expected: kept, actual: to ?? null });
}
