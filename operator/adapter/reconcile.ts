import { ADAPTER_FINALIZER } from '../api/lora-adapter.ts';
import type { Outcome } from '../kube/queue.ts';
import type { AdapterDeps } from './deps.ts';
import { type Draft, lookAgain, mark, openDraft, type Stage } from './draft.ts';
import { failureOf } from './failures.ts';
import { finalize } from './finalize.ts';
import { activate } from './phases/activate.ts';
import { fetch } from './phases/fetch.ts';
import { place } from './phases/place.ts';
import { ready } from './phases/ready.ts';
import { resolve } from './phases/resolve.ts';
import { stage } from './phases/stage.ts';

const STAGES: readonly Stage[] = [resolve, place, fetch, stage, activate];
const FAILURE_RETRY_MS = 5_000;

/** Looks at one adapter as it is now and brings the world one step nearer to its spec. Level-based: call it any time. */
export async function reconcile(deps: AdapterDeps, key: string, signal: AbortSignal): Promise<Outcome> {
  const adapter = deps.adapters.get(key);
  if (adapter === undefined) deps.records.forget(key, deps.spool);
  if (adapter === undefined || deps.leader.leading === null) return { kind: 'done' };
  if (adapter.metadata.deletionTimestamp !== undefined) return await finalize(deps, adapter, signal);
  if (!adapter.metadata.finalizers?.includes(ADAPTER_FINALIZER)) {
    await deps.objects.addFinalizer(adapter);
    return { kind: 'done' };
  }
  const draft = openDraft(deps, adapter);
  for (const step of STAGES) {
    if (draft.adapter.spec.suspend && !step.whenSuspended) break;
    const { next } = await attempt(step, draft, deps, signal);
    if (!next) break;
  }
  if (!draft.record.recovered) return outcomeOf(draft);
  await deps.mutexes.run(key, async (lock) => ready(lock, draft, deps));
  deps.status.write(adapter, draft.status);
  if (draft.placement.desired.some(({ state }) => state?.seeded === false)) deps.requeuePool(draft.poolKey);
  return outcomeOf(draft);
}

function outcomeOf({ againMs }: Draft): Outcome {
  return againMs === null ? { kind: 'done' } : { kind: 'again', afterMs: againMs };
}

async function attempt(step: Stage, draft: Draft, deps: AdapterDeps, signal: AbortSignal) {
  try {
    return await step.run(draft, deps, signal);
  } catch (error) {
    signal.throwIfAborted();
    const failure = failureOf(error);
    const { reason, message, terminal } = failure;
    deps.metrics.failure(reason);
    mark(draft, deps, step.condition, { status: 'False', reason, message });
    if (step.condition === 'Loaded') draft.loadFailure = failure;
    if (reason === 'InternalError') deps.log.error({ adapter: draft.key, err: error }, 'a stage failed');
    if (!terminal && draft.againMs === null) lookAgain(draft, FAILURE_RETRY_MS);
    // What pods should hold already is brought to them even while the source fails.
    return { next: draft.record.target !== null };
  }
}
