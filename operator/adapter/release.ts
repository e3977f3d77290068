import type { Pod } from '../pods/pod.ts';
import { podNames } from '../pods/words.ts';
import { heldBytes } from './bytes.ts';
import { type AdapterDeps, fenceOf } from './deps.ts';
import { type Draft, lookAgain, openDraft } from './draft.ts';
import { adapterIn, planRemoval } from './plan.ts';
import { bringToRest, lacksRest, restingIn } from './rest.ts';
import { rowsOf, targetOf } from './rows.ts';

const REPORT_MS = 1_000;
const RETRY_MS = 5_000;
const REST_RETRY_MS = 30_000;

/**
 * Takes the adapter out of pods that should not hold it any more, once every pod that should serves the revision. Where
 * none should, the bytes stay with the operator, and what nobody can fetch again rests in a pod: they may be the last.
 */
export async function release(draft: Draft, deps: AdapterDeps, signal: AbortSignal): Promise<void> {
  const { record, adapter, key } = draft;
  if (!record.recovered || adapter.spec.suspend) return;
  if (surplusOf(draft).length === 0 && !lacksRest(draft)) return;
  await deps.mutexes.run(key, async () => {
    // The spec may say something else by now, or a push have come.
    const latest = deps.adapters.get(key);
    if (latest?.metadata.uid !== record.uid || latest.metadata.deletionTimestamp !== undefined) return;
    const now = openDraft(deps, latest);
    // Before and after: where no other pod has room, in the place of what is removed.
    if (lacksRest(now)) await bringToRest(now, deps, signal);
    if (await mayLetGo(now, deps, signal)) await removeSurplus(now, deps, signal);
    if (lacksRest(now)) await bringToRest(now, deps, signal);
    if (lacksRest(now)) lookAgain(now, REST_RETRY_MS);
    if (now.againMs !== null) lookAgain(draft, now.againMs);
  });
}

async function removeSurplus(draft: Draft, deps: AdapterDeps, signal: AbortSignal): Promise<void> {
  const surplus = surplusOf(draft);
  const removed = await Promise.all(surplus.map((pod) => removeFrom(draft, deps, pod, signal)));
  if (removed.includes(false)) lookAgain(draft, RETRY_MS);
  const pods = podNames(surplus.filter((_, index) => removed[index]).map(({ name }) => name));
  if (pods !== '') deps.log.info({ adapter: draft.key, pods }, 'removed where it is not placed any more');
}

/** Pods that hold the adapter and should not. */
function surplusOf(draft: Draft): Pod[] {
  const { placement, servedName } = draft;
  const { members, desired } = placement;
  if (members.length === desired.length) return [];
  const resting = restingIn(draft);
  const others = members.filter((pod) => !desired.includes(pod) && pod !== resting);
  return planRemoval(others, servedName).flatMap(({ pod, action }) => (action === 'remove' ? [pod] : []));
}

async function mayLetGo(draft: Draft, deps: AdapterDeps, signal: AbortSignal): Promise<boolean> {
  const target = targetOf(draft);
  if (target === null) return false;
  if (draft.placement.desired.length > 0) {
    return rowsOf(draft, deps).every(({ observed }) => observed === 'current');
  }
  // Pods know what was accepted last, and one in which it rests does not: an operator that comes next has status alone.
  if (draft.adapter.status?.desiredRevision?.digest !== draft.record.desired?.digest) return false;
  return (await heldBytes({ draft, deps, digest: target.digest, signal })) !== null;
}

async function removeFrom(
  { servedName, record, key }: Draft,
  deps: AdapterDeps,
  pod: Pod,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await pod.client.remove(servedName, null, fenceOf(deps, record), signal);
    record.clearPod(pod.uid);
    deps.metrics.removed('moved');
    await deps.fleet.whenState(pod, (state) => adapterIn(state, servedName) === undefined, REPORT_MS);
    return true;
  } catch (error) {
    signal.throwIfAborted();
    deps.log.warn({ adapter: key, pod: pod.name, err: error }, 'pod did not remove the adapter');
    return false;
  }
}
