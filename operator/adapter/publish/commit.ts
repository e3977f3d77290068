import type { Fence } from '../../../server/contract/adapter-api.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import type { Lock } from '../../../server/transfer/serial.ts';
import type { Pod } from '../../pods/pod.ts';
import { type AdapterDeps, NotLeading } from '../deps.ts';
import type { Draft } from '../draft.ts';
import { activateOn } from '../phases/activate.ts';
import { observe } from '../plan.ts';
import { discard } from './discard.ts';
import type { Publication, PublishResult } from './publication.ts';
import { notLeader } from './pushable.ts';
import { type Swap, type SwapResult, tenths } from './swap.ts';

type PodResult = PublishResult['pods'][number];

/** A revision that pods have been given, and that is to become the desired one. */
export type Staged = Pick<
  Publication,
  'namespace' | 'name' | 'servedName' | 'digest' | 'bytes' | 'staged' | 'wait'
>;

export interface Accepted {
  draft: Draft;
  /** The content was desired already. */
  noop: boolean;
  /** And nothing else is new. */
  isRetry: boolean;
}

/**
 * What has become desired stays so even where the caller goes away or pods fail: reconciling brings it to them. The
 * answer does not wait for what the mutex is kept for, the pods' own reports. `accept` makes the revision the desired
 * one, or throws.
 */
export function commit(
  deps: AdapterDeps,
  staged: Staged,
  accept: (lock: Lock) => Accepted,
): Promise<PublishResult> {
  const { namespace, name, digest } = staged;
  const { promise, resolve, reject } = Promise.withResolvers<PublishResult>();
  const committed = deps.mutexes.run(`${namespace}/${name}`, async (lock) => {
    let accepted: Accepted;
    try {
      accepted = accept(lock);
    } catch (error) {
      reject(error);
      return await discard(deps, staged);
    }
    const { draft, noop, isRetry } = accepted;
    // Whatever becomes of it now, reconciling brings to pods what is desired.
    deps.requeue(draft.key);
    // Pods that have the content from an earlier order are to report that it was accepted again.
    const has = (pod: Pod) => isRetry && observe(pod, draft.servedName, digest) === 'current';
    const pods = staged.staged.flatMap(({ ok, pod }) => (ok && !has(pod) ? [pod] : []));
    if (staged.wait === 'staged') resolve(resultOf(draft, staged, { noop, swap: null }));
    // At once all the same: until a pod has it as current, nobody but this process knows that it was accepted.
    const { outcome, reported } = await activateAll(draft, deps, lock, pods);
    if (outcome !== null && outcome.timing === null) throw activationFailed(outcome.results);
    resolve(resultOf(draft, staged, { noop, swap: outcome }));
    await reported;
  });
  committed.catch(reject);
  return promise;
}

/** The number under which something is accepted now. */
export function acceptedBy({ leader, records }: AdapterDeps): Fence {
  if (leader.leading === null) throw notLeader();
  return { term: leader.leading.term, sequence: records.nextSequence() };
}

async function activateAll(
  draft: Draft,
  deps: AdapterDeps,
  lock: Lock,
  pods: Pod[],
): Promise<{ outcome: Swap | null; reported: Promise<unknown> }> {
  const target = draft.record.desired;
  if (pods.length === 0 || target === null) return { outcome: null, reported: Promise.resolve() };
  try {
    // Not the caller's signal: a half-done swap is finished whoever hangs up.
    const { signal } = new AbortController();
    return await activateOn(draft, deps, { lock, pods, target, signal });
  } catch (error) {
    throw error instanceof NotLeading ? notLeader() : error;
  }
}

function resultOf(
  draft: Draft,
  { digest, bytes, staged }: Staged,
  { noop, swap }: { noop: boolean; swap: Swap | null },
): PublishResult {
  const swapped = new Map(swap?.results.map((result) => [result.pod, result]));
  const pods = staged.map(({ pod, ok, error, ms: stagedMs }): PodResult => {
    const result = swapped.get(pod);
    const { name } = pod;
    const ms = tenths(stagedMs + (result?.ms ?? 0));
    if (!ok) return { name, state: 'failed', ms, ...(error && { error: error.toJSON().error }) };
    if (result?.error) return { name, state: 'failed', ms, error: String(result.error) };
    const isActive = result !== undefined || observe(pod, draft.servedName, digest) === 'current';
    return { name, state: isActive ? 'active' : 'staged', ms };
  });
  const asked = new Set(staged.map(({ pod }) => pod));
  const unasked = draft.placement.desired
    .filter((pod) => !asked.has(pod))
    .map((pod): PodResult => {
      const error = { code: 'pod_failed', message: pod.error ?? 'The pod does not answer' };
      return { name: pod.name, state: 'failed', ms: 0, error };
    });
  return {
    revision: digest,
    step: draft.record.desired?.step ?? null,
    bytes,
    noop,
    pods: [...pods, ...unasked],
    swap: swap?.timing ?? null,
  };
}

function activationFailed(results: readonly SwapResult[]): LorikeetError {
  const actual = results.map(({ pod, error }) => ({ pod: pod.name, message: String(error) }));
  const message =
    'The revision is in the pods but none confirmed that it serves it; the operator tries again';
  return new LorikeetError('pod_failed', message, { actual });
}
