import { LorikeetError } from '../../../server/contract/errors.ts';
import type { RevisionRecord } from '../../api/lora-adapter.ts';
import type { Pod } from '../../pods/pod.ts';
import { podNames } from '../../pods/words.ts';
import type { Draft } from '../draft.ts';
import { isContentRefusal } from '../failures.ts';
import { observe } from '../plan.ts';
import type { AdapterRecord } from '../record.ts';
import type { PodOutcome } from './publication.ts';

/** Whether a push may take the place of what is desired: compare-and-swap first, then the trainer's own count. */
export function requireMayFollow(
  record: Pick<AdapterRecord, 'desired' | 'previous'>,
  push: { ifMatch: string | null; step: number | null },
): void {
  const expected = push.ifMatch?.replace(/^"(.*)"$/, '$1') ?? null;
  requireMatch(record.desired, { expected, field: 'if-match' });
  const newest = newestStep(record);
  if (push.step === null || newest === null || push.step > newest) return;
  throw new LorikeetError('step_not_newer', `Expected a step above ${newest} but received ${push.step}`, {
    field: 'x-lora-step',
    expected: newest + 1,
    actual: push.step,
  });
}

/** `expected`: a digest, `*` for any, null for no check. */
export function requireMatch(
  desired: RevisionRecord | null,
  { expected, field }: { expected: string | null; field: string },
): void {
  if (expected === null) return;
  const actual = desired?.digest ?? null;
  if (expected === '*' ? actual !== null : actual === expected) return;
  const message = `Expected ${expected} to be current but ${actual ?? 'nothing'} is`;
  throw new LorikeetError('precondition_failed', message, { field, expected, actual });
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

/** Neither a push without a step nor a rollback in between lets an older step pass. */
export function newestStep({
  desired,
  previous,
}: Pick<AdapterRecord, 'desired' | 'previous'>): number | null {
  const steps = [desired, ...previous]
    .flatMap((revision) => [revision?.step, revision?.rollback?.reachedStep])
    .filter((step) => step != null);
  return steps.length === 0 ? null : Math.max(...steps);
}

/** With a barrier a revision that some desired pod lacks would be accepted, and served by none of them. */
export function requireBarrier(
  { adapter, placement, servedName }: Draft,
  digest: string,
  staged: readonly PodOutcome[],
): void {
  if (adapter.spec.update.consistency !== 'Barrier') return;
  const has = new Set(staged.flatMap(({ ok, pod }) => (ok ? [pod] : [])));
  const lacking = placement.desired.filter(
    (pod) => !has.has(pod) && !['held', 'current'].includes(observe(pod, servedName, digest)),
  );
  if (lacking.length === 0) return;
  const errors = new Map(staged.map(({ pod, error }) => [pod, error]));
  const actual = lacking.map((pod) => {
    const { code = 'pod_failed', message = lackOf(pod) } = errors.get(pod) ?? {};
    return { pod: pod.name, code, message };
  });
  const names = podNames(actual.map(({ pod, message }) => `${pod} (${message})`));
  const code = actual.every(({ code }) => code === 'no_capacity') ? 'no_capacity' : 'pod_failed';
  throw new LorikeetError(
    code,
    `With update.consistency Barrier all pods must take the revision, and these did not: ${names}. ` +
      'Nothing was changed: try again once they can take it, or set PerPod so that the other pods go on',
    { field: 'spec.update.consistency', actual },
  );
}

/** Of a pod that was sent nothing. */
function lackOf({ reachable, error }: Pod): string {
  return reachable ? 'it came while the push was under way' : `unreachable: ${error ?? 'no report yet'}`;
}

/** One pod that refuses the content refuses it for all; otherwise one pod that has it is enough. */
export function requireStaged(staged: readonly PodOutcome[]): void {
  const refusal = staged.find(({ error }) => error !== null && isContentRefusal(error.code));
  if (refusal?.error) throw refusal.error;
  if (staged.some(({ ok }) => ok)) return;
  const actual = staged.map(({ pod: { name }, error }) => {
    return { pod: name, code: error?.code, message: error?.message };
  });
  const isFull = staged.length > 0 && staged.every(({ error }) => error?.code === 'no_capacity');
  throw new LorikeetError(isFull ? 'no_capacity' : 'pod_failed', 'No pod could take the revision', {
    actual,
  });
}
