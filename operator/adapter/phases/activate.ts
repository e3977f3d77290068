import type { ActivateRequest } from '../../../server/contract/adapter-api.ts';
import type { Lock } from '../../../server/transfer/serial.ts';
import { PodUnreachable } from '../../../server/transfer/unreachable.ts';
import { type RevisionRecord, shortDigest } from '../../api/lora-adapter.ts';
import { durationMs } from '../../api/quantity.ts';
import type { Pod } from '../../pods/pod.ts';
import { msText, podsText } from '../../pods/words.ts';
import { noteFailure } from '../attempts.ts';
import { type AdapterDeps, fenceOf } from '../deps.ts';
import { acceptanceOf } from '../desired.ts';
import { type Draft, NEXT, type Phase, STOP } from '../draft.ts';
import { adapterIn } from '../plan.ts';
import { type Swap, swap } from '../publish/swap.ts';
import { rowsOf, targetOf } from '../rows.ts';
import { whenReported } from './reported.ts';

/** A pod reports a swap at once; this only bounds how long the word of the watch is waited for. */
const REPORT_MS = 500;

/** Makes the revision current in every pod that holds it, all at once. */
export const activate: Phase = {
  condition: 'Loaded',
  whenSuspended: true,
  async run(draft, deps, signal) {
    return await deps.mutexes.run(draft.key, async (lock) => {
      // A push may have come while this reconcile staged: the plan is made again under the lock.
      const target = targetOf(draft);
      if (target === null) return STOP;
      const pods = rowsOf(draft, deps).flatMap((row) => (row.action === 'activate' ? [row.pod] : []));
      if (pods.length === 0) return NEXT;
      const { reported } = await activateOn(draft, deps, { lock, pods, target, signal });
      await reported;
      return NEXT;
    });
  },
};

interface Activation {
  lock: Lock;
  pods: Pod[];
  target: RevisionRecord;
  signal: AbortSignal;
}

/** The mutex is to be kept until `reported`: then the pods' own word agrees with the replies. */
export async function activateOn(
  draft: Draft,
  deps: AdapterDeps,
  activation: Activation,
): Promise<{ outcome: Swap; reported: Promise<unknown> }> {
  const { lock, pods, target, signal } = activation;
  const { record, servedName, adapter } = draft;
  const { digest: revision } = target;
  const accepted = acceptanceOf(target, record.uid);
  const { keepRevisions, inFlight } = adapter.spec.update;
  const requestFor = (pod: Pod): ActivateRequest => ({
    revision,
    keep: keepRevisions,
    // Where nothing is superseded, no request could go on with anything else.
    inFlight: adapterIn(pod.state, servedName)?.current ? inFlight : 'Finish',
    ...(accepted && { accepted }),
  });
  const order = { servedName, requestFor, fence: fenceOf(deps, record) };
  const outcome = await swap(pods, order, deps.clock, signal);
  for (const { pod, error } of outcome.results) {
    if (error !== null) noteFailure(draft, deps, pod, { digest: target.digest, error });
    if (error instanceof PodUnreachable && outcome.timing !== null) pod.client.breaker.suspect();
  }
  const confirmed = outcome.results.flatMap(({ pod, error }) => (error === null ? [pod] : []));
  const word = { digest: target.digest, as: 'current', waitMs: REPORT_MS } as const;
  const reported = Promise.all(confirmed.map((pod) => whenReported(draft, deps, pod, word)));
  noteSwap(draft, deps, { lock, target, outcome, confirmed: confirmed.length });
  return { outcome, reported };
}

function warnOfSkew({ adapter, key }: Draft, deps: AdapterDeps, skewMs: number): void {
  const { consistency, maxSkew } = adapter.spec.update;
  if (consistency !== 'Barrier' || skewMs <= durationMs(maxSkew)) return;
  const words = `The pods confirmed the swap within ${msText(skewMs)}; spec.update.maxSkew is ${maxSkew}`;
  deps.log.warn({ adapter: key, skewMs, maxSkew }, 'pods swapped further apart than they should');
  deps.events.event(adapter, 'Warning', 'SkewExceeded', words);
}

function noteSwap(
  draft: Draft,
  deps: AdapterDeps,
  done: { lock: Lock; target: RevisionRecord; outcome: Swap; confirmed: number },
): void {
  const { lock, target, outcome, confirmed } = done;
  if (outcome.timing === null) return;
  const { durationMs, skewMs } = outcome.timing;
  draft.record.swap(lock, { durationMs, skewMs, bytes: target.bytes, pods: confirmed });
  deps.metrics.phase('activate', durationMs);
  deps.metrics.swap(durationMs, skewMs);
  const { key, adapter } = draft;
  const step = target.step === null ? {} : { step: target.step };
  deps.log.info(
    { adapter: key, revision: shortDigest(target.digest), ...step, pods: confirmed, durationMs, skewMs },
    'activated',
  );
  warnOfSkew(draft, deps, skewMs);
  const skew = confirmed > 1 ? `, skew ${msText(skewMs)}` : '';
  const words = `${target.short} on ${podsText(confirmed)} in ${msText(durationMs)}${skew}`;
  if (draft.record.tellSwap(deps.clock.monotonicMs())) {
    deps.events.event(adapter, 'Normal', 'Activated', words);
  }
}
