import { type LoraAdapter, servedNameOf } from '../api/lora-adapter.ts';
import { poolKeyOf } from '../api/names.ts';
import { keyOf } from '../kube/resource.ts';
import type { Pod } from '../pods/pod.ts';
import { adapterIn, relevantAttempt } from './plan.ts';
import type { Records } from './records.ts';

/**
 * Names of the adapters that a new or restarted pod still has to wait for. It waits for what it can get, never for what
 * it cannot:
 *
 *   the adapter                                                  | waited for
 *   -------------------------------------------------------------|-----------
 *   is being deleted, or suspended                               | no
 *   has not been looked at by this process yet                   | yes
 *   has no revision: nothing pushed, source failed, bad content  | no
 *   has one whose bytes nobody holds any more                    | no
 *   is current in the pod, in the desired revision               | no
 *   was refused by the pod, or did not fit into it               | no
 *   anything else                                                | yes
 */
export function missingFor(pod: Pod, adapters: readonly LoraAdapter[], records: Records): string[] {
  return adapters
    .filter((adapter) => poolKeyOf(adapter) === pod.poolKey && isAwaited(pod, adapter, records))
    .map(servedNameOf);
}

function isAwaited(pod: Pod, adapter: LoraAdapter, records: Records): boolean {
  if (adapter.metadata.deletionTimestamp !== undefined || adapter.spec.suspend) return false;
  const record = records.get(keyOf(adapter));
  if (record === undefined || record.uid !== adapter.metadata.uid || !record.decided) return true;
  const digest = record.target?.digest ?? null;
  if (digest === null || digest === record.lost) return false;
  if (adapterIn(pod.state, servedNameOf(adapter))?.current === digest) return false;
  const attempt = relevantAttempt(record.attemptOf(pod.uid), pod, digest);
  return !(attempt?.terminal || attempt?.code === 'no_capacity');
}
