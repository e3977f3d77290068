import { setCondition } from '../api/conditions.ts';
import { ADAPTER_FINALIZER, type LoraAdapter } from '../api/lora-adapter.ts';
import { setProgress } from '../api/progress.ts';
import { durationMs } from '../api/quantity.ts';
import type { Outcome } from '../kube/queue.ts';
import { ownerIn } from '../placement/lookup.ts';
import type { Pod } from '../pods/pod.ts';
import { podNames, podsText } from '../pods/words.ts';
import { type AdapterDeps, fenceOf } from './deps.ts';
import { type Draft, openDraft } from './draft.ts';
import { adapterIn, planRemoval } from './plan.ts';

const REPORT_MS = 1_000;
const CHECK_MS = 2_000;
/** How long a pod that this process has just begun to follow may take to report, deadline or not. */
const FIRST_REPORT_MS = 10_000;

/**
 * Takes the adapter out of every pod, then lets the object go. Absence is what a pod reports, not what a call returned:
 * of the pool's pods and of those that left it and run on. A pod that is gone counts as absent; a silent one, and running
 * requests, hold the object until a deadline.
 */
export async function finalize(
  deps: AdapterDeps,
  adapter: LoraAdapter,
  signal: AbortSignal,
): Promise<Outcome> {
  if (!adapter.metadata.finalizers?.includes(ADAPTER_FINALIZER)) return { kind: 'done' };
  const draft = openDraft(deps, adapter);
  if (draft.standing === 'unknown') return { kind: 'again', afterMs: CHECK_MS };
  // What it had there before it was refused, the pool has removed; its name may be that of another one now.
  const owner = ownerIn(deps, draft.poolKey, draft.servedName);
  const isFirst = owner === null || owner.metadata.uid === adapter.metadata.uid;
  const isOwner = draft.standing === 'allowed' && isFirst;
  // A cache may be behind: what is destroyed is looked up first.
  if ((await deps.objects.live(adapter)) === null) return { kind: 'done' };
  const removal = isOwner ? await removeFromPods(draft, deps, signal) : 'absent';
  if (removal === 'waits') return { kind: 'again', afterMs: CHECK_MS };
  if (removal === 'absent' && isOwner) {
    deps.events.event(adapter, 'Normal', 'Removed', absentText(draft));
    deps.log.info({ adapter: draft.key }, 'removed');
  }
  await deps.objects.removeFinalizer(adapter);
  deps.records.forget(draft.key, deps.spool);
  return { kind: 'done' };
}

/** Pods of a pool that was deleted before this process began to look are not known to it. */
function absentText({ servedName, pool, adapter }: Draft): string {
  const { name } = adapter.spec.poolRef;
  if (pool !== null) return `${servedName} is in no pod of pool ${name}`;
  return `${servedName} is in no pod that the operator knows of pool ${name}, which is gone`;
}

/** `givenUp`: the deadline has passed, and some pod has not confirmed. */
type Removal = 'absent' | 'waits' | 'givenUp';

async function removeFromPods(draft: Draft, deps: AdapterDeps, signal: AbortSignal): Promise<Removal> {
  const pods = [...deps.fleet.podsOf(draft.poolKey), ...formerPods(draft, deps)];
  await deps.mutexes.run(draft.key, async (lock) => {
    const holding = planRemoval(pods, draft.servedName).filter(({ action }) => action === 'remove');
    if (holding.length > 0) draft.record.withdraw(lock);
    await Promise.all(holding.map(({ pod }) => removeFrom(draft, deps, pod, signal)));
  });
  const rows = planRemoval(pods, draft.servedName).filter(({ action }) => action !== 'none');
  const waits = draft.adapter.spec.deletion?.policy !== 'Immediate';
  const holding = rows.filter(({ action }) => action === 'remove' || (action === 'drain' && waits));
  const silent = rows.filter(({ action }) => action === 'wait');
  if (holding.length === 0 && silent.length === 0) return 'absent';
  if (isOverdue(draft, deps) && silent.every(({ pod }) => deps.fleet.followedMs(pod) > FIRST_REPORT_MS)) {
    const unconfirmed = [...holding, ...silent].map(({ pod }) => pod);
    giveUp(draft, deps, unconfirmed);
    return 'givenUp';
  }
  markWaiting(draft, deps, { holding: holding.map(({ pod }) => pod), silent: silent.map(({ pod }) => pod) });
  return 'waits';
}

/** Where another pool has the pod by now, the name may be that of another adapter. */
function formerPods({ poolKey, servedName }: Draft, deps: AdapterDeps): Pod[] {
  const isOurs = (poolKeyNow: string | null) =>
    poolKeyNow === null || ownerIn(deps, poolKeyNow, servedName) === null;
  return deps.fleet.formerOf(poolKey).flatMap(({ pod, poolKeyNow }) => (isOurs(poolKeyNow) ? [pod] : []));
}

async function removeFrom(draft: Draft, deps: AdapterDeps, pod: Pod, signal: AbortSignal): Promise<void> {
  const { servedName, key } = draft;
  try {
    await pod.client.remove(servedName, null, fenceOf(deps, draft.record), signal);
    deps.metrics.removed('deleted');
    await deps.fleet.whenState(pod, (state) => adapterIn(state, servedName) === undefined, REPORT_MS);
  } catch (error) {
    signal.throwIfAborted();
    deps.log.warn({ adapter: key, pod: pod.name, err: error }, 'pod did not remove the adapter');
  }
}

function isOverdue({ adapter }: Draft, deps: AdapterDeps): boolean {
  const since = Date.parse(adapter.metadata.deletionTimestamp ?? '');
  const drainMs = durationMs(adapter.spec.deletion?.drainTimeout ?? '60s');
  return deps.clock.date().getTime() >= since + drainMs;
}

function giveUp(draft: Draft, deps: AdapterDeps, pods: Pod[]): void {
  deps.tombstones.bury(draft.poolKey, draft.servedName);
  const names = podNames(pods.map(({ name }) => name));
  const message = `${names} did not confirm the removal of ${draft.servedName} in time; it is removed when they answer`;
  deps.events.event(draft.adapter, 'Warning', 'RemovalUnconfirmed', message);
  deps.log.warn({ adapter: draft.key, pods: names }, 'removal given up for now');
}

function markWaiting(draft: Draft, deps: AdapterDeps, pods: { holding: Pod[]; silent: Pod[] }): void {
  const [first] = pods.silent;
  const names = podNames((first ? pods.silent : pods.holding).map(({ name }) => name));
  const reason = first ? 'RemovalBlocked' : 'Draining';
  const message = first
    ? `${names}: ${first.error ?? 'no answer'}`
    : `${podsText(pods.holding.length)}: ${names}`;
  const { status, metadata } = draft.adapter;
  const at = { observedGeneration: metadata.generation ?? 0, now: deps.clock.date() };
  const verdict = { status: 'False', reason, message } as const;
  const conditions = setCondition(status?.conditions ?? [], { type: 'Ready', ...verdict, ...at });
  deps.status.write(draft.adapter, {
    ...status,
    conditions: setProgress(conditions, { isStalled: false, ...at }),
  });
  if (draft.record.tell(verdict)?.reason === reason) return;
  deps.log.info({ adapter: draft.key, code: reason, reason: message }, 'removal waits');
  if (first) deps.events.event(draft.adapter, 'Warning', reason, message);
}
