import type { Fence } from '../../../server/contract/adapter-api.ts';
import { type ErrorCode, LorikeetError } from '../../../server/contract/errors.ts';
import type { Lock } from '../../../server/transfer/serial.ts';
import { type RevisionRecord, shortDigest } from '../../api/lora-adapter.ts';
import { quantityBytes } from '../../api/quantity.ts';
import { keyOf } from '../../kube/resource.ts';
import { type AdapterDeps, fenceOf, NotLeading } from '../deps.ts';
import { timestamp } from '../desired.ts';
import { type Draft, openDraft } from '../draft.ts';
import { isContentRefusal } from '../failures.ts';
import { activateOn } from '../phases/activate.ts';
import { observe } from '../plan.ts';
import { recoverRecord } from '../recover.ts';
import { requireMayFollow } from './preconditions.ts';
import type { PodOutcome, Publication, PublishResult, PushContext } from './publication.ts';
import { requirePushable } from './pushable.ts';
import { type Swap, type SwapResult, tenths } from './swap.ts';

/** How a push calls a pod that gave no answer while others did. */
const HUNG: ReadonlySet<ErrorCode> = new Set(['pod_failed', 'timeout']);

const DISCARD_MS = 1_000;

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
    const { maxBytes } = adapter.spec.source.push ?? {};
    return {
      adapter,
      servedName,
      pods,
      ...placement.fit,
      maxBytes: Math.min(placement.maxBytes, maxBytes ? quantityBytes(maxBytes) : Number.MAX_SAFE_INTEGER),
      desired: record.desired && { digest: record.desired.digest, step: record.desired.step },
      config: record.config,
    };
  }

  fenceFor(namespace: string, name: string): Fence {
    return this.#fence(this.#draft(namespace, name));
  }

  /**
   * What has become desired stays so even where the caller goes away or pods fail: reconciling brings it to them. The
   * answer does not wait for what the mutex is kept for, the pods' own reports.
   */
  publish(publication: Publication): Promise<PublishResult> {
    const { namespace, name } = publication;
    const { promise, resolve, reject } = Promise.withResolvers<PublishResult>();
    const published = this.#deps.mutexes.run(`${namespace}/${name}`, async (lock) => {
      publication.signal.throwIfAborted();
      const draft = this.#draft(namespace, name);
      const noop = await this.#adoptOrDiscard(lock, draft, publication, reject);
      const { outcome, reported } = await this.#activate(lock, draft, publication);
      this.#deps.requeue(draft.key);
      if (outcome !== null && outcome.timing === null) throw activationFailed(outcome.results);
      resolve(resultOf(draft, publication, { noop, swap: outcome }));
      await reported;
    });
    published.catch(reject);
    return promise;
  }

  /** What a refused push has staged would else lie in the pods until they need the room. */
  async #adoptOrDiscard(
    lock: Lock,
    draft: Draft,
    publication: Publication,
    refuse: (error: unknown) => void,
  ): Promise<boolean> {
    try {
      return this.#adopt(lock, draft, publication);
    } catch (error) {
      refuse(error);
      await discard(draft, this.#deps, publication);
      throw error;
    }
  }

  /** True where the revision was desired already: a retry changes nothing, whatever else it says. */
  #adopt(lock: Lock, draft: Draft, publication: Publication): boolean {
    const { staged, digest, config } = publication;
    const noop = draft.record.desired?.digest === digest;
    for (const { pod, error } of staged) {
      if (error && HUNG.has(error.code)) pod.client.breaker.suspect();
    }
    if (!noop) {
      requireMayFollow(draft.record, publication);
      requireStaged(staged);
      draft.record.adopt(lock, revisionOf(publication, this.#deps.clock.date()), {
        keep: draft.adapter.spec.update.keepRevisions,
        spool: this.#deps.spool,
      });
    }
    draft.record.keepConfig(config);
    return noop;
  }

  async #activate(
    lock: Lock,
    draft: Draft,
    { staged, wait, digest }: Publication,
  ): Promise<{ outcome: Swap | null; reported: Promise<unknown> }> {
    const target = draft.record.desired;
    const pods = staged
      .filter(({ ok, pod }) => ok && observe(pod, draft.servedName, digest) !== 'current')
      .map(({ pod }) => pod);
    if (wait === 'staged' || pods.length === 0 || target === null) {
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

  #fence(draft: Draft): Fence {
    if (this.#deps.leader.leading === null) throw notLeader();
    return fenceOf(this.#deps, draft.record);
  }

  #draft(namespace: string, name: string): Draft {
    if (this.#deps.leader.leading === null) throw notLeader();
    const adapter = this.#deps.adapters.get(keyOf({ metadata: { namespace, name } }));
    if (adapter === undefined) {
      throw new LorikeetError(
        'adapter_not_found',
        `There is no LoraAdapter ${name} in namespace ${namespace}`,
      );
    }
    const draft = openDraft(this.#deps, adapter);
    requirePushable(draft, this.#deps);
    if (!recoverRecord(draft, this.#deps)) {
      throw new LorikeetError(
        'no_pods',
        'The operator has just started and the pods have not reported yet; try again',
      );
    }
    return draft;
  }
}

/** One pod that refuses the content refuses it for all; otherwise one pod that has it is enough. */
function requireStaged(staged: readonly PodOutcome[]): void {
  const refusal = staged.find(({ error }) => error !== null && isContentRefusal(error.code));
  if (refusal?.error) throw refusal.error;
  if (staged.some(({ ok }) => ok)) return;
  const errors = staged.map(({ pod, error }) => ({
    pod: pod.name,
    code: error?.code,
    message: error?.message,
  }));
  const isFull = staged.length > 0 && staged.every(({ error }) => error?.code === 'no_capacity');
  throw new LorikeetError(isFull ? 'no_capacity' : 'pod_failed', 'No pod could take the revision', {
    actual: errors,
  });
}

async function discard(draft: Draft, deps: AdapterDeps, { staged, digest }: Publication): Promise<void> {
  const { desired, current, previous } = draft.record;
  if ([desired, current, ...previous].some((revision) => revision?.digest === digest)) return;
  const fence = fenceOf(deps, draft.record);
  const pods = staged.flatMap(({ ok, pod }) => (ok ? [pod] : []));
  const left = AbortSignal.timeout(DISCARD_MS);
  await Promise.allSettled(pods.map((pod) => pod.client.remove(draft.servedName, digest, fence, left)));
}

function revisionOf(publication: Publication, now: Date): RevisionRecord {
  const { digest, step, bytes, rank, targetModules, pushedBy } = publication;
  return {
    digest,
    short: shortDigest(digest),
    step,
    bytes,
    rank,
    targetModules: [...targetModules].sort(),
    pushedBy,
    at: timestamp(now),
  };
}

function resultOf(
  draft: Draft,
  publication: Publication,
  { noop, swap }: { noop: boolean; swap: Swap | null },
): PublishResult {
  const { digest, bytes, staged } = publication;
  const swapped = new Map(swap?.results.map((result) => [result.pod, result]));
  const pods = staged.map((outcome): PublishResult['pods'][number] => {
    const { pod, ok, error, ms } = outcome;
    if (!ok)
      return {
        name: pod.name,
        state: 'failed',
        ms: tenths(ms),
        ...(error ? { error: error.toJSON().error } : {}),
      };
    const result = swapped.get(pod);
    if (result?.error) {
      return { name: pod.name, state: 'failed', ms: tenths(ms + result.ms), error: String(result.error) };
    }
    const isActive = result !== undefined || observe(pod, draft.servedName, digest) === 'current';
    return { name: pod.name, state: isActive ? 'active' : 'staged', ms: tenths(ms + (result?.ms ?? 0)) };
  });
  const asked = new Set(staged.map(({ pod }) => pod));
  const left = draft.placement.desired.filter((pod) => !asked.has(pod));
  const unasked = left.map((pod): PublishResult['pods'][number] => {
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

function notLeader(): LorikeetError {
  return new LorikeetError('not_leader', 'This operator process does not lead');
}
