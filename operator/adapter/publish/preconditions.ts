import { LorikeetError } from '../../../server/contract/errors.ts';
import type { RevisionRecord } from '../../api/lora-adapter.ts';
import type { AdapterRecord } from '../record.ts';

/** Whether a push may take the place of what is desired: compare-and-swap first, then the trainer's own count. */
export function requireMayFollow(
  record: Pick<AdapterRecord, 'desired' | 'previous'>,
  push: { ifMatch: string | null; step: number | null },
): void {
  requireMatch(record.desired, push.ifMatch);
  const newest = newestStep(record);
  if (push.step === null || newest === null || push.step > newest) return;
  throw new LorikeetError('step_not_newer', `Expected a step above ${newest} but received ${push.step}`, {
    field: 'x-lora-step',
    expected: newest + 1,
    actual: push.step,
  });
}

function requireMatch(desired: RevisionRecord | null, ifMatch: string | null): void {
  if (ifMatch === null) return;
  const expected = ifMatch.replace(/^"(.*)"$/, '$1');
  const actual = desired?.digest ?? null;
  if (expected === '*' ? actual !== null : actual === expected) return;
  const message = `Expected ${expected} to be current but ${actual ?? 'nothing'} is`;
  throw new LorikeetError('precondition_failed', message, { field: 'if-match', expected, actual });
}

/** Content that is desired already, with a step that is newer than all: the trainer has gone on, its tensors have not. */
export function movesStep(
  record: Pick<AdapterRecord, 'desired' | 'previous'>,
  push: { digest: string; step: number | null },
): boolean {
  return (
    record.desired?.digest === push.digest && push.step !== null && push.step > (newestStep(record) ?? -1)
  );
}

/** A push without a step in between does not let an older step pass. */
function newestStep({ desired, previous }: Pick<AdapterRecord, 'desired' | 'previous'>): number | null {
  const steps = [desired, ...previous].flatMap((revision) => (revision?.step == null ? [] : [revision.step]));
  return steps.length === 0 ? null : Math.max(...steps);
}
