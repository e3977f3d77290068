import type { RevisionRecord } from '../api/lora-adapter.ts';
import type { Pod } from '../pods/pod.ts';
import { archiveOf } from '../source/archive.ts';
import { heldBytes } from './bytes.ts';
import type { AdapterDeps } from './deps.ts';
import type { Draft } from './draft.ts';
import { deliver } from './phases/stage.ts';
import { neededBytes } from './places.ts';
import { adapterIn } from './plan.ts';
import { targetOf } from './rows.ts';

/**
 * What no pod should serve any more, and nobody can fetch again, rests in one of them, staged and not current: the spool
 * goes with the operator's pod, and the revision would with it. Null: it need not, or none has it yet.
 */
export function restingIn(draft: Draft): Pod | null {
  const target = restOf(draft);
  if (target === null) return null;
  return draft.placement.members.find((pod) => isRestingIn(pod, draft.servedName, target.digest)) ?? null;
}

export function lacksRest(draft: Draft): boolean {
  return restOf(draft) !== null && restingIn(draft) === null;
}

/** Brings it to the pod with the most room of those that know nothing of it. */
export async function bringToRest(draft: Draft, deps: AdapterDeps, signal: AbortSignal): Promise<void> {
  const target = restOf(draft);
  const pod = target && roomiest(draft, target);
  const bytes = pod && (await heldBytes({ draft, deps, digest: target.digest, signal }));
  if (!bytes) return;
  try {
    await deliver(draft, deps, pod, { target, bytes, life: signal });
    deps.log.info({ adapter: draft.key, pod: pod.name, revision: target.short }, 'rests in a pod');
  } catch (error) {
    signal.throwIfAborted();
    deps.log.warn(
      { adapter: draft.key, pod: pod.name, err: error },
      'a pod did not take what should rest in it',
    );
  }
}

/** The revision that one pod should keep so; null: none. */
function restOf(draft: Draft): RevisionRecord | null {
  const { members, desired } = draft.placement;
  const target = targetOf(draft);
  if (target === null || desired.length > 0 || members.length === 0) return null;
  if (draft.adapter.spec.source.push === undefined || draft.record.lost === target.digest) return null;
  return archiveOf(draft.adapter, target.digest) === null ? target : null;
}

function isRestingIn({ state, reachable }: Pod, servedName: string, digest: string): boolean {
  const adapter = adapterIn(state, servedName);
  if (!reachable || adapter === undefined || adapter.current !== null) return false;
  return adapter.revisions.some((revision) => revision.digest === digest && revision.state === 'staged');
}

function roomiest({ placement, servedName }: Draft, target: RevisionRecord): Pod | null {
  const bytes = neededBytes(target, placement.fit?.geometry.layers ?? 0);
  const free = ({ state }: Pod) => (state === null ? 0 : state.limits.hostBytes - state.used.hostBytes);
  const able = placement.members.filter(
    (pod) => pod.reachable && adapterIn(pod.state, servedName) === undefined && free(pod) >= bytes,
  );
  return able.sort((a, b) => free(b) - free(a) || (a.name < b.name ? -1 : 1))[0] ?? null;
}
