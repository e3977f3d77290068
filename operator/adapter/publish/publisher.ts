import type { ErrorCode } from '../../../server/contract/errors.ts';
import type { Lock } from '../../../server/transfer/serial.ts';
import { type AdapterDeps, fenceOf } from '../deps.ts';
import { revisionOf, timestamp } from '../desired.ts';
import { excessOf, PushRates, quotaExceeded } from '../quota.ts';
import { heedPods } from '../recover.ts';
import { type Why, whyOf } from '../why.ts';
import { archiveRefusal } from './archive.ts';
import { type Accepted, acceptedBy, commit } from './commit.ts';
import { keptEarlier } from './earlier.ts';
import { movesStep, requireBarrier, requireMayFollow, requireStaged } from './preconditions.ts';
import type {
  Held,
  Publication,
  PublishResult,
  PushContext,
  Rollback,
  RollbackResult,
} from './publication.ts';
import { answeringPods, openKnown, openPushable } from './pushable.ts';
import { rollBack } from './rollback.ts';

/** How a push calls a pod that gave no answer while others did; not `timeout`: how long to wait was the trainer's choice. */
const HUNG: ErrorCode = 'pod_failed';

/** The publisher of push/: revisions that trainers push become desired here, under the same mutex that reconciling activates under. */
export class RevisionPublisher {
  readonly #deps: AdapterDeps;
  readonly #rates = new PushRates();

  constructor(deps: AdapterDeps) {
    this.#deps = deps;
  }

  context(namespace: string, name: string): PushContext {
    const draft = openPushable(this.#deps, namespace, name);
    const { placement, record, servedName, adapter } = draft;
    const { pods, fit } = answeringPods(draft);
    return {
      adapter,
      servedName,
      pods,
      ...fit,
      maxBytes: placement.maxBytes,
      desired: record.desired && { digest: record.desired.digest, step: record.desired.step },
      earlier: keptEarlier(draft, this.#deps.spool),
      config: record.config,
      fence: fenceOf(this.#deps, record),
    };
  }

  held(namespace: string, name: string): Held {
    const draft = openKnown(this.#deps, namespace, name);
    const { desired } = draft.record;
    return {
      servedName: draft.servedName,
      pods: draft.placement.desired.filter(({ reachable, state }) => reachable && state !== null),
      desired: desired && { digest: desired.digest, step: desired.step },
      earlier: keptEarlier(draft, this.#deps.spool),
    };
  }

  why(namespace: string, name: string): Why {
    return whyOf(this.#deps, namespace, name);
  }

  admit(namespace: string, name: string, bytes: number): void {
    const draft = openPushable(this.#deps, namespace, name);
    const excess = excessOf(draft, this.#deps, bytes);
    if (excess !== null) throw quotaExceeded(draft, excess);
    this.#rates.begin(draft, this.#deps.clock.monotonicMs());
  }

  async publish(publication: Publication): Promise<PublishResult> {
    for (const { pod, error } of publication.staged) {
      if (error?.code === HUNG) pod.client.breaker.suspect();
    }
    const refusal = await archiveRefusal(this.#deps, publication);
    return await commit(this.#deps, publication, (lock) => {
      if (refusal !== null) throw refusal;
      return this.#accept(lock, publication);
    });
  }

  rollback(rollback: Rollback): Promise<RollbackResult> {
    return rollBack(this.#deps, rollback);
  }

  /** Makes the pushed revision the desired one, unless this is the retry of what is desired already. */
  #accept(lock: Lock, publication: Publication): Accepted {
    const { namespace, name, digest, step, bytes, rank, targetModules, pushedBy, staged } = publication;
    publication.signal.throwIfAborted();
    const draft = openPushable(this.#deps, namespace, name);
    heedPods(lock, draft, this.#deps);
    const { record, adapter } = draft;
    const noop = record.desired?.digest === digest;
    const isMove = movesStep(record, publication);
    // A retry changes nothing, whatever else it says, but that a newer step is the trainer's word that it has gone on.
    if (!noop || isMove) {
      if (!isMove) requireMayFollow(record, publication);
      // Others may have grown meanwhile, and of a body in chunks nobody knew the size.
      const excess = noop ? null : excessOf(draft, this.#deps, bytes);
      if (excess !== null) throw quotaExceeded(draft, excess);
      requireStaged(staged);
      requireBarrier(draft, digest, staged);
      const { spool, clock } = this.#deps;
      const accepted = acceptedBy(this.#deps);
      const known = { digest, step, bytes, rank, targetModules, pushedBy, accepted };
      const revision = revisionOf(known, timestamp(clock.date()));
      record.adopt(lock, revision, { keep: adapter.spec.update.keepRevisions, spool });
    }
    record.keepConfig(publication.config);
    return { draft, noop, isRetry: noop && !isMove };
  }
}
