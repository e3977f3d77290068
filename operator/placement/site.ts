import type { PodState } from '../../server/contract/adapter-api.ts';
import type { Pod } from '../pods/pod.ts';
import type { Site } from './claim.ts';

/** A pod with the room that it has for the adapters of these names: what it holds of others is not theirs. */
export function siteOf(pod: Pod, names: ReadonlySet<string>): Site {
  const { uid: id, name, zone = null, state, reachable } = pod;
  if (!reachable || state === null)
    return { id, name, zone, slots: Number.MAX_SAFE_INTEGER, roomBytes: null, kvFree: 1 };
  const others = state.adapters.filter((adapter) => !names.has(adapter.name));
  const revisions = others.flatMap((adapter) => adapter.revisions);
  const takenBytes = revisions.reduce((sum, { bytes }) => sum + bytes, 0);
  const roomBytes = state.limits.hostBytes - takenBytes;
  return { id, name, zone, slots: state.limits.slots, roomBytes, kvFree: kvFreeOf(state) };
}

function kvFreeOf({ limits, used }: PodState): number {
  if (!limits.kvBlocks || used.kvBlocks === undefined) return 1;
  return Math.max(0, Math.min(1, 1 - used.kvBlocks / limits.kvBlocks));
}
