import type { Fence } from '../../../server/contract/adapter-api.ts';
import { type ErrorCode, LorikeetError } from '../../../server/contract/errors.ts';
import type { Lock } from '../../../server/transfer/serial.ts';
import type { LoraAdapter } from '../../api/lora-adapter.ts';
import type { Pod } from '../../pods/pod.ts';
import { type AdapterDeps, fenceOf, NotLeading } from '../deps.ts';
import { revisionOf, timestamp } from '../desired.ts';
import { type Draft, openDraft } from '../draft.ts';
import { isContentRefusal } from '../failures.ts';
import { activateOn } from '../phases/activate.ts';
import { observe } from '../plan.ts';
import { heedPods, recoverRecord } from '../recover.ts';
import { discard } from './discard.ts';
import { movesStep, requireMayFollow } from './preconditions.ts';
import type { PodOutcome, Publication, PublishResult, PushContext } from './publication.ts';
import { requirePushable } from './pushable.ts';
import { type Swap, type SwapResult, tenths } from './swap.ts';

/** How a push calls a pod that gave no answer while others did; not `timeout`: how long to wait was the trainer's choice. */
const HUNG: ErrorCode = 'pod_failed';

type PodResult = PublishResult['pods'][number];

interface Accepted {
  draft: Draft;
  /** The content was desired already. */
  noop: boolean;
  /** And nothing else about the push is new. */
  isRetry: boolean;
}

/** The publisher of push/: revisions that trainers push become desired here, under the same mutex that reconciling activates under. */
export class RevisionPublisher {
  readonly #deps: AdapterDeps;

  constructor(deps: AdapterDeps) {
    this.#deps = deps;
  }

  context(namespace: string, name: string): PushContext {
    const draft = this.#draft(namespace, name);
    const { placement, record, servedName, adapter } = draft;
    const pods = placement.desired.filter(
      (pod) => pod.reachable && pod.state !== null && pod.client.responsive,
    );
    if (placement.fit === null || pods.length === 0) {
      throw new LorikeetError('no_pods', `No pod of pool ${draft.poolKey} answers`, {
        expected: placement.desired.map((pod) => pod.name),
        actual: [],
      });
    }
    return {
      adapter,
      servedName,
      pods,
      ...placement.fit,
      maxBytes: placement.maxBytes,
      desired: record.desired && { digest: record.desired.digest, step: record.desired.step },
      config: record.config,
      fence: fenceOf(this.#deps, record),
    };
  }

  /**
   * What has become desired stays so even where the caller goes away or pods fail: reconciling brings it to them. The
   * answer does not wait for what the mutex is kept for, the pods' own reports.
   */
  publish(publication: Publication): Promise<PublishResult> {
    const { namespace, name, digest, staged } = publication;
    const { promise, resolve, reject } = Promise.withResolvers<PublishResult>();
    const published = this.#deps.mutexes.run(`${namespace}/${name}`, async (lock) => {
      for (const { pod, error } of staged) {
        if (error?.code === HUNG) pod.client.breaker.suspect();
      }
      let accepted: Accepted;
      try {
        accepted = this.#accept(lock, publication);
      } catch (error) {
        reject(error);
        return await discard(this.#deps, publication);
      }
      const { draft, noop, isRetry } = accepted;
      // Whatever becomes of this push now, reconciling brings to pods what is desired.
      this.#deps.requeue(draft.key);
      draft.record.keepConfig(publication.config);
      // Pods that have the content from an earlier push are to report that it was accepted again.
      const has = (pod: Pod) => isRetry && observe(pod, draft.servedName, digest) === 'current';
      const pods = publication.staged.flatMap(({ ok, pod }) => (ok && !has(pod) ? [pod] : []));
      if (publication.wait === 'staged') resolve(resultOf(draft, publication, { noop, swap: null }));
      // At once all the same: until a pod has it as current, nobody but this process knows that it was accepted.
      const { outcome, reported } = await this.#activate(lock, draft, pods);
      if (outcome !== null && outcome.timing === null) throw activationFailed(outcome.results);
      resolve(resultOf(draft, publication, { noop, swap: outcome }));
      await reported;
    });
    published.catch(reject);
    return promise;
  }

  /** Makes the pushed revision the desired one, unless this is the retry of what is desired already. */
  #accept(lock: Lock, publication: Publication): Accepted {
    const { namespace, name, digest, step, bytes, rank, targetModules, pushedBy, staged } = publication;
    publication.signal.throwIfAborted();
    const draft = this.#draft(namespace, name);
    heedPods(lock, draft, this.#deps);
    const { record, adapter } = draft;
    const noop = record.desired?.digest === digest;
    const isMove = movesStep(record, publication);
    // A retry changes nothing, whatever else it says, but that a newer step is the trainer's word that it has gone on.
    if (noop && !isMove) return { draft, noop, isRetry: true };
    if (!isMove) requireMayFollow(record, publication);
    requireStaged(staged);
    const { spool, clock } = this.#deps;
    const accepted = acceptedBy(this.#deps);
    const known = { digest, step, bytes, rank, targetModules, pushedBy, accepted };
    const revision = revisionOf(known, timestamp(clock.date()));
    record.adopt(lock, revision, { keep: adapter.spec.update.keepRevisions, spool });
    return { draft, noop, isRetry: false };
  }

  async #activate(
    lock: Lock,
    draft: Draft,
    pods: Pod[],
  ): Promise<{ outcome: Swap | null; reported: Promise<unknown> }> {
    const target = draft.record.desired;
    if (pods.length === 0 || target === null) {
      return { outcome: null, reported: Promise.resolve() };
    }
    try {
      // Not the caller's signal: a half-done swap is finished whoever hangs up.
      const { signal } = new AbortController();
      return await activateOn(draft, this.#deps, { lock, pods, target, signal });
    } catch (error) {
      throw error instanceof NotLeading ? notLeader() : error;
    }
  }

  #adapter(namespace: string, name: string): LoraAdapter {
    if (this.#deps.leader.leading === null) throw notLeader();
    const adapter = this.#deps.adapters.get(`${namespace}/${name}`);
    if (adapter !== undefined) return adapter;
    const message = `There is no LoraAdapter ${name} in namespace ${namespace}`;
    throw new LorikeetError('adapter_not_found', message);
  }

  #draft(namespace: string, name: string): Draft {
    const draft = openDraft(this.#deps, this.#adapter(namespace, name));
    requirePushable(draft, this.#deps);
    if (recoverRecord(draft, this.#deps)) return draft;
    const message = 'The operator has just started and the pods have not reported yet; try again';
    throw new LorikeetError('no_pods', message);
  }
}

/** One pod that refuses the content refuses it for all; otherwise one pod that has it is enough. */
function requireStaged(staged: readonly PodOutcome[]): void {
  const refusal = staged.find(({ error }) => error !== null && isContentRefusal(error.code));
  if (refusal?.error) throw refusal.error;
  if (staged.some(({ ok }) => ok)) return;
  const actual = staged.map(({ pod: { name }, error }) => {
    return { pod: name, code: error?.code, message: error?.message };
  });
  const isFull = staged.length > 0 && staged.every(({ error }) => error?.code === 'no_capacity');
  throw new LorikeetError(isFull ? 'no_capacity' : 'pod_failed', 'No pod could take the revision', {
    actual,
  });
}

function resultOf(
  draft: Draft,
  publication: Publication,
  { noop, swap }: { noop: boolean; swap: Swap | null },
): PublishResult {
  const { digest, bytes, staged } = publication;
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

function acceptedBy({ leader, records }: AdapterDeps): Fence {
  if (leader.leading === null) throw notLeader();
  return { term: leader.leading.term, sequence: records.nextSequence() };
}

function notLeader(): LorikeetError {
  return new LorikeetError('not_leader', 'This operator process does not lead');
}
