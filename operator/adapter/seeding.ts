import { type LoraAdapter, servedNameOf } from '../api/lora-adapter.ts';
import { poolKeyOf } from '../api/names.ts';
import { keyOf } from '../kube/resource.ts';
import type { Missing, Pod } from '../pods/pod.ts';
import type { Shares } from './places.ts';
import { adapterIn, relevantAttempt } from './plan.ts';
import type { AdapterRecord } from './record.ts';
import type { Records } from './records.ts';

interface Pool {
  pods: readonly Pod[];
  adapters: readonly LoraAdapter[];
  records: Records;
  /** Null: all adapters go everywhere. */
  shares: Shares | null;
}

/**
 * The adapters that a new or restarted pod still has to wait for. It waits for what it can get, and for what other pods
 * serve: let in without that, it would answer 404 where they do not.
 *
 *   the adapter                                                  | waited for
 *   -------------------------------------------------------------|-----------
 *   is being deleted, or is not placed there                     | no
 *   is suspended, and the pod serves some revision of it         | no
 *   has not been looked at by this process yet                   | yes
 *   has no revision: nothing pushed, source failed, bad content  | no
 *   has one whose bytes nobody holds any more                    | no
 *   is current in the pod, in the desired revision               | no
 *   was refused by the pod, or did not fit into it               | while other pods serve it, and the pod no revision of it
 *   anything else                                                | yes
 */
export function missingFor(pod: Pod, { pods, adapters, records, shares }: Pool): Missing[] {
  const isPlaced = ({ metadata }: LoraAdapter) =>
    shares?.byId.get(metadata.uid ?? '')?.pods.has(pod.uid) ?? true;
  return adapters
    .filter((adapter) => poolKeyOf(adapter) === pod.poolKey && isPlaced(adapter))
    .flatMap((adapter) => awaitedOf(pod, { adapter, pods, record: records.get(keyOf(adapter)) }));
}

function awaitedOf(
  pod: Pod,
  {
    adapter,
    pods,
    record,
  }: { adapter: LoraAdapter; pods: readonly Pod[]; record: AdapterRecord | undefined },
): Missing[] {
  const name = servedNameOf(adapter);
  if (adapter.metadata.deletionTimestamp !== undefined) return [];
  const isKnown = record?.uid === adapter.metadata.uid && record?.decided;
  if (record === undefined || !isKnown) return [{ name, refusal: null }];
  const { suspend } = adapter.spec;
  const digest = (suspend ? record.current : record.target)?.digest ?? null;
  if (digest === null || digest === record.lost) return [];
  if (suspend ? currentIn(pod, name) : currentIn(pod, name) === digest) return [];
  const attempt = relevantAttempt(record.attemptOf(pod.uid), pod, digest);
  const cannotHold = attempt?.terminal || attempt?.code === 'no_capacity';
  if (!attempt || !cannotHold) return [{ name, refusal: null }];
  const isServed = pods.some((other) => other.reachable && other.state?.seeded && currentIn(other, name));
  return isServed && !currentIn(pod, name) ? [{ name, refusal: attempt.code }] : [];
}

function currentIn(pod: Pod, name: string): string | null {
  return adapterIn(pod.state, name)?.current ?? null;
}
