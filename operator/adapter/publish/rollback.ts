import { LorikeetError } from '../../../server/contract/errors.ts';
import type { Lock } from '../../../server/transfer/serial.ts';
import { rootMessage } from '../../../server/transfer/unreachable.ts';
import { type RevisionRecord, shortDigest } from '../../api/lora-adapter.ts';
import type { Pod } from '../../pods/pod.ts';
import { heldBytes } from '../bytes.ts';
import type { AdapterDeps } from '../deps.ts';
import type { Draft } from '../draft.ts';
import { deliver } from '../phases/stage.ts';
import { observe } from '../plan.ts';
import { heedPods } from '../recover.ts';
import { type Accepted, acceptedBy, commit } from './commit.ts';
import { keptEarlier, requireEarlier } from './earlier.ts';
import { callAll } from './laggards.ts';
import { newestStep, requireBarrier, requireMatch, requireStaged } from './preconditions.ts';
import type { PodOutcome, Rollback, RollbackResult } from './publication.ts';
import { answeringPods, openPushable } from './pushable.ts';

interface Decided {
  draft: Draft;
  before: RevisionRecord;
  target: RevisionRecord;
}

/**
 * Makes an earlier revision the desired one. As with a push, every pod has it before any serves it; what is decided
 * before the pods are given it is decided again, under the mutex, when they have it.
 */
export async function rollBack(deps: AdapterDeps, rollback: Rollback): Promise<RollbackResult> {
  const { namespace, name, signal } = rollback;
  const startMs = deps.clock.monotonicMs();
  const key = `${namespace}/${name}`;
  const { draft, before, target } = await deps.mutexes.run(key, async (lock) => decide(lock, deps, rollback));
  const { digest, bytes } = target;
  const staged = await bringToAll(draft, deps, { target, signal });
  const stageMs = deps.clock.monotonicMs() - startMs;
  const { servedName } = draft;
  const what = { namespace, name, servedName, digest, bytes, staged, wait: 'active' } as const;
  const result = await commit(deps, what, (lock) => accept(lock, deps, { rollback, digest, staged }));
  const previous = result.noop ? digest : before.digest;
  return { ...result, previous, stageMs };
}

function decide(lock: Lock, deps: AdapterDeps, { namespace, name, to, expectCurrent }: Rollback): Decided {
  const draft = openPushable(deps, namespace, name);
  heedPods(lock, draft, deps);
  const { desired } = draft.record;
  const target = requireEarlier({ desired, earlier: keptEarlier(draft, deps.spool) }, to);
  const before = desired ?? target;
  if (target.digest !== before.digest)
    requireMatch(before, { expected: expectCurrent, field: 'expectCurrent' });
  return { draft, before, target };
}

function accept(
  lock: Lock,
  deps: AdapterDeps,
  { rollback, digest, staged }: { rollback: Rollback; digest: string; staged: readonly PodOutcome[] },
): Accepted {
  rollback.signal.throwIfAborted();
  const { draft, before, target } = decide(lock, deps, rollback);
  if (target.digest !== digest) {
    const message = 'Another revision became the desired one while this rollback was prepared.';
    throw new LorikeetError('superseded', message);
  }
  if (before.digest === digest) return { draft, noop: true, isRetry: true };
  requireStaged(staged);
  requireBarrier(draft, digest, staged);
  const { record, adapter, key } = draft;
  const { spool } = deps;
  const how = { from: before.digest, reachedStep: newestStep(record), by: rollback.askedBy };
  const revision = { ...target, accepted: acceptedBy(deps), rollback: how };
  record.adopt(lock, revision, { keep: adapter.spec.update.keepRevisions, spool });
  record.keepConfig(spool.open(digest)?.config ?? null);
  deps.log.info({ adapter: key, revision: target.short, from: before.short, by: how.by }, 'rolled back');
  const words = `${target.short} is desired again instead of ${before.short}, as ${how.by} asked`;
  deps.events.event(adapter, 'Normal', 'RolledBack', words);
  return { draft, noop: false, isRetry: false };
}

/** Pods that have kept the revision are done at once. */
async function bringToAll(
  draft: Draft,
  deps: AdapterDeps,
  { target, signal }: { target: RevisionRecord; signal: AbortSignal },
): Promise<PodOutcome[]> {
  const { pods } = answeringPods(draft);
  const { digest } = target;
  const lacks = (pod: Pod) => observe(pod, draft.servedName, digest) === 'absent';
  const bytes = pods.some(lacks) ? await heldBytes({ draft, deps, digest, signal }) : null;
  const outcomes = new Map<Pod, PodOutcome>();
  const call = async (pod: Pod, life: AbortSignal): Promise<boolean> => {
    const startMs = deps.clock.monotonicMs();
    const note = (error: LorikeetError | null) => {
      outcomes.set(pod, { pod, ok: error === null, error, ms: deps.clock.monotonicMs() - startMs });
      return error === null;
    };
    if (!lacks(pod)) return note(null);
    if (bytes === null) return note(bytesGone(digest));
    return await deliver(draft, deps, pod, { target, bytes, life }).then(
      () => note(null),
      (error: unknown) => note(podFailed(error)),
    );
  };
  await callAll(pods, call, { clock: deps.clock, signal });
  return [...outcomes.values()];
}

function bytesGone(digest: string): LorikeetError {
  const message = `The pod has not kept ${shortDigest(digest)}, and nobody could give it the bytes`;
  return new LorikeetError('revision_not_found', message);
}

function podFailed(error: unknown): LorikeetError {
  return error instanceof LorikeetError
    ? error
    : new LorikeetError('pod_failed', rootMessage(error), { cause: error });
}
