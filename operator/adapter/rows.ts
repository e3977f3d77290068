import type { RevisionRecord } from '../api/lora-adapter.ts';
import type { AdapterDeps } from './deps.ts';
import type { Draft } from './draft.ts';
import { plan, type Row } from './plan.ts';

/**
 * What is brought to pods that lack it. While spec.suspend is set: what the fleet served before, and only to pods that
 * serve no revision, as one that takes the place of another.
 */
export function targetOf({ record, adapter }: Draft): RevisionRecord | null {
  return adapter.spec.suspend ? record.current : record.target;
}

/** The plan as things stand at this moment: a pod that has left since the look began is not in it. */
export function rowsOf(draft: Draft, deps: AdapterDeps): Row[] {
  const { record, placement, servedName, poolKey } = draft;
  const present = new Set(deps.fleet.podsOf(poolKey));
  const digest = targetOf(draft)?.digest ?? null;
  return plan({
    servedName,
    digest,
    pods: placement.desired.filter((pod) => present.has(pod)),
    attemptOf: (pod) => record.attemptOf(pod.uid),
    confirmedBy: (pod) => record.confirmedBy(pod.uid),
    refusedSomewhere:
      digest !== null && record.refusalOf(digest) !== null && record.current?.digest !== digest,
    isBarrier: draft.adapter.spec.update.consistency === 'Barrier',
    onlyWhereNothing: draft.adapter.spec.suspend || mayBeBehind(draft),
    nowMs: deps.clock.monotonicMs(),
  });
}

/**
 * True in a new process while a source has not said yet what status may not have told: pods that serve what the one
 * before had found there are not taken back for as long as that takes.
 */
function mayBeBehind({ adapter, record }: Draft): boolean {
  const { settledFor, failure } = record.source;
  return adapter.spec.source.push === undefined && settledFor === null && failure === null;
}
