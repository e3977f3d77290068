import { truncateMessage, type Verdict } from '../api/conditions.ts';
import { POD_ERRORS_MAX, type PodError } from '../api/lora-adapter.ts';
import type { ServerPool } from '../api/server-pool.ts';
import type { Placement } from '../placement/placement.ts';
import type { ClaimedPod } from '../pods/fleet.ts';
import type { Pod, Shortage } from '../pods/pod.ts';
import { podNames, podsText } from '../pods/words.ts';
import type { HeldPod } from './seed.ts';

/** What is known of a pool's pods. */
export interface PoolPods {
  pods: readonly Pod[];
  claimed: readonly ClaimedPod[];
  placement: Placement;
  held: readonly HeldPod[];
}

export function poolVerdict(
  pool: ServerPool,
  { pods, claimed, placement, held, watchesAll }: PoolPods & { watchesAll: boolean },
): Verdict {
  const lets = pool.spec.tenancy?.namespaces?.from ?? 'Same';
  if (lets !== 'Same' && !watchesAll) return { status: 'False', reason: 'TenancyUnavailable' };
  const [taken] = claimed;
  if (taken) {
    const names = podNames(claimed.map(({ name }) => name));
    const message = `${names}: of ServerPool ${taken.owner}, which is older; no two may select one pod`;
    return { status: 'False', reason: 'PodsOwnedElsewhere', message };
  }
  if (pods.length === 0) return { status: 'False', reason: 'NoPodsMatch' };
  const { mismatched, desired } = placement;
  if (mismatched.length > 0) {
    const names = podNames(mismatched.map(({ name }) => name));
    return {
      status: 'False',
      reason: 'BaseModelMismatch',
      message: `${names}: ${mismatchText(pool, mismatched[0])}`,
    };
  }
  const [stuck] = held;
  if (stuck) {
    const names = podNames(held.map(({ pod }) => pod.name));
    return { status: 'False', reason: 'PodsHeldBack', message: `${names}: ${heldText(stuck)}` };
  }
  const silent = desired.filter((pod) => !pod.reachable || pod.state === null);
  if (silent.length > 0) {
    const [locked] = silent.filter((pod) => pod.lacksToken);
    if (locked) return { status: 'False', reason: 'TokenNotFound', message: `${locked.error}` };
    const names = podNames(silent.map(({ name }) => name));
    const message = `${names}: ${silent[0]?.error ?? 'no report yet'}`;
    return { status: 'False', reason: 'PodsNotReady', message };
  }
  const message = `${podsText(desired.length)} with base model ${pool.spec.baseModel.name}`;
  return { status: 'True', reason: 'PodsReady', message };
}

/** Whether somebody must change a pool, or the operator's flags: other reasons go by themselves when pods are replaced or Secrets come. */
export function isStalled({ reason }: Verdict): boolean {
  return reason === 'PodsOwnedElsewhere' || reason === 'TenancyUnavailable';
}

/** Pods that cannot be used, worst first. */
export function poolPodErrors(pool: ServerPool, { pods, placement, held }: PoolPods): PodError[] {
  const others = placement.mismatched.map((pod) => ({
    name: pod.name,
    reason: 'BaseModelMismatch',
    message: truncateMessage(mismatchText(pool, pod)),
  }));
  const stuck = held.map((item) => ({
    name: item.pod.name,
    reason: 'PodsHeldBack',
    message: truncateMessage(heldText(item)),
  }));
  const silent = pods
    .filter((pod) => pod.error !== null)
    .map((pod) => ({
      name: pod.name,
      reason: 'Unreachable',
      message: truncateMessage(pod.error ?? 'no answer'),
    }));
  return [...others, ...stuck, ...silent].slice(0, POD_ERRORS_MAX);
}

function heldText({ name, refusal }: HeldPod): string {
  return `cannot hold ${name} (${refusal}), which other pods serve, and gets no requests until it can`;
}

function mismatchText(pool: ServerPool, pod: Pod | undefined): string {
  const { name, digest } = pool.spec.baseModel;
  const actual = pod?.state?.baseModel;
  if (actual?.name !== name) return `Expected base model ${name} but the pod has ${actual?.name}`;
  const expected = digest ?? 'the digest that most pods have';
  return `Expected ${expected} for base model ${name} but the pod has ${actual.digest}`;
}

export function usageOf(
  pods: readonly Pod[],
): Record<'slots' | 'hostBytes', { total: number; used: number }> {
  const states = pods.flatMap((pod) => (pod.state && pod.reachable ? [pod.state] : []));
  const sum = (read: (state: (typeof states)[number]) => number) =>
    states.reduce((total, state) => total + read(state), 0);
  return {
    slots: { total: sum((state) => state.limits.slots), used: sum((state) => state.used.slots) },
    hostBytes: { total: sum((state) => state.limits.hostBytes), used: sum((state) => state.used.hostBytes) },
  };
}

/** What does not fit before all; then host memory: without it nothing more fits; without a free slot adapters only take turns. */
export function capacityVerdict(pods: readonly Pod[], shortages: readonly Shortage[]): Verdict {
  const reporting = pods.flatMap((pod) =>
    pod.state && pod.reachable ? [{ name: pod.name, ...pod.state }] : [],
  );
  if (reporting.length === 0)
    return { status: 'Unknown', reason: 'Pending', message: 'No pod has reported yet.' };
  const [first] = shortages;
  if (first) {
    const more = shortages.length > 1 ? `, ${shortages.length - 1} more do not fit` : '';
    const message = `${first.name}${more}: ${first.why}`;
    return { status: 'True', reason: 'AdaptersDoNotFit', message };
  }
  const full = reporting.find(({ used, limits }) => used.hostBytes > 0.9 * limits.hostBytes);
  if (full) {
    const { used, limits, name } = full;
    const message = `${name} uses ${used.hostBytes} of ${limits.hostBytes} bytes of host memory`;
    return { status: 'True', reason: 'HostMemoryFull', message };
  }
  const crowded = reporting.find(({ used, limits }) => used.slots >= limits.slots);
  if (crowded) {
    const message = `${crowded.name} uses all of its ${crowded.limits.slots} slots`;
    return { status: 'True', reason: 'SlotsFull', message };
  }
  return { status: 'False', reason: 'Sufficient' };
}
