import type { RevisionRecord } from '../../api/lora-adapter.ts';
import type { Pod } from '../../pods/pod.ts';
import { podsText } from '../../pods/words.ts';
import type { SpooledRevision } from '../../spool/spool.ts';
import { noteFailure } from '../attempts.ts';
import { bytesOf } from '../bytes.ts';
import { type AdapterDeps, fenceOf } from '../deps.ts';
import { type Draft, NEXT, type Phase, STOP } from '../draft.ts';
import { callAll } from '../publish/laggards.ts';
import { rowsOf, targetOf } from '../rows.ts';
import { delivered, waived } from './delivered.ts';
import { stageByRelay } from './relay.ts';

/** Brings the revision into every pod that lacks it, without making it current anywhere. */
export const stage: Phase = {
  condition: 'Loaded',
  whenSuspended: true,
  async run(draft, deps, signal) {
    // Under the mutex: a push that is just being activated has not been reported by all of its pods.
    const { target, pods } = await deps.mutexes.run(draft.key, async () => ({
      target: targetOf(draft),
      pods: rowsOf(draft, deps).flatMap((row) => (row.action === 'stage' ? [row.pod] : [])),
    }));
    if (target === null) return STOP;
    if (pods.length === 0) return NEXT;
    const startMs = deps.clock.monotonicMs();
    const bytes = await bytesOf({ draft, deps, digest: target.digest, signal });
    if (bytes === null) return NEXT;
    draft.record.regain();
    const call = (pod: Pod, life: AbortSignal) => stagePod(draft, deps, pod, { target, bytes, signal, life });
    const relayed = await stageByRelay(draft, deps, pods, { target, bytes, signal });
    const left = pods.filter((pod) => !relayed.has(pod));
    const staged = await callAll(left, call, { clock: deps.clock, signal });
    const ms = deps.clock.monotonicMs() - startMs;
    deps.metrics.phase('stage', ms);
    const count = relayed.size + staged.filter(Boolean).length;
    if (count === 0) return NEXT;
    const about = { adapter: draft.key, revision: target.short, pods: count, ms: Math.round(ms) };
    deps.log.info(about, 'staged');
    deps.events.event(draft.adapter, 'Normal', 'Staged', `${target.short} on ${podsText(count)}`);
    return NEXT;
  },
};

interface Delivery {
  target: RevisionRecord;
  bytes: SpooledRevision;
  /** Of this call: ends with the caller's, or when the pod lags behind the others. */
  life: AbortSignal;
}

async function stagePod(
  draft: Draft,
  deps: AdapterDeps,
  pod: Pod,
  { signal, ...delivery }: Delivery & { signal: AbortSignal },
): Promise<boolean> {
  try {
    // A pod that gave no answer last time is asked something short first.
    if (draft.record.attemptOf(pod.uid)?.code === 'Unreachable') await pod.client.state(delivery.life);
    await deliver(draft, deps, pod, delivery);
    return true;
  } catch (error) {
    signal.throwIfAborted();
    noteFailure(draft, deps, pod, { digest: delivery.target.digest, error });
    return false;
  }
}

/** Brings a revision into a pod, and returns when the pod reports that it has it. */
export async function deliver(
  draft: Draft,
  deps: AdapterDeps,
  pod: Pod,
  { target, bytes, life }: Delivery,
): Promise<void> {
  const { digest, step } = target;
  await pod.client.stage(draft.servedName, digest, bytes.stream(), {
    size: bytes.size,
    config: bytes.config,
    step,
    fence: fenceOf(deps, draft.record),
    allow: waived(draft),
    signal: life,
  });
  await delivered(draft, deps, pod, digest);
}
