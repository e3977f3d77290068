import { ADAPTER_FINALIZER } from '../api/lora-adapter.ts';
import type { Outcome } from '../kube/queue.ts';
import type { AdapterDeps } from './deps.ts';
import { type Draft, lookAgain, openDraft, type Phase, type PhaseOutcome, type Verdicts } from './draft.ts';
import { isJustAsked } from './errand.ts';
import { failureOf, verdictOf } from './failures.ts';
import { finalize } from './finalize.ts';
import { activate } from './phases/activate.ts';
import { admit } from './phases/admit.ts';
import { fetch } from './phases/fetch.ts';
import { place } from './phases/place.ts';
import { resolve } from './phases/resolve.ts';
import { stage } from './phases/stage.ts';
import { release } from './release.ts';
import { report } from './report.ts';

const PHASES: readonly Phase[] = [resolve, place, fetch, admit, stage, activate];
const FAILURE_RETRY_MS = 5_000;
/** A leader that pauses may go on in the same term. */
const PAUSED_RETRY_MS = 1_000;
/** Staging that takes longer is worth a word in status before it ends. */
const PROGRESS_MS = 1_000;

/** Looks at one adapter as it is now and brings the world nearer to its spec. Level-based: call it any time. */
export async function reconcile(deps: AdapterDeps, key: string, signal: AbortSignal): Promise<Outcome> {
  const adapter = deps.adapters.get(key);
  if (adapter?.metadata.deletionTimestamp !== undefined || adapter === undefined) deps.errands.drop(key);
  if (adapter === undefined) deps.records.forget(key, deps.spool);
  if (adapter === undefined) return { kind: 'done' };
  if (deps.leader.leading === null) return { kind: 'again', afterMs: PAUSED_RETRY_MS };
  if (adapter.metadata.deletionTimestamp !== undefined) return await finalize(deps, adapter, signal);
  if (!adapter.metadata.finalizers?.includes(ADAPTER_FINALIZER)) {
    await deps.objects.addFinalizer(adapter);
    return { kind: 'done' };
  }
  const draft = openDraft(deps, adapter);
  // Whoever knows more adds the key.
  if (draft.standing === 'unknown') return { kind: 'again', afterMs: PAUSED_RETRY_MS };
  draft.record.keepPods(draft.placement.members);
  const verdicts: Verdicts = {};
  for (const phase of PHASES) {
    if (draft.adapter.spec.suspend && !phase.whenSuspended) continue;
    using _progress = phase === stage ? reportIfSlow(draft, deps, verdicts) : null;
    const { verdict, next } = await attempt(phase, draft, deps, signal);
    if (verdict !== null) verdicts[phase.condition] = verdict;
    if (!next) break;
  }
  await release(draft, deps, signal);
  if (!draft.record.recovered || isJustAsked(draft)) return outcomeOf(draft);
  await report(draft, deps, verdicts);
  if (draft.placement.members.some(({ state }) => state?.seeded === false)) deps.requeuePool(draft.poolKey);
  return outcomeOf(draft);
}

function outcomeOf({ againMs }: Draft): Outcome {
  return againMs === null ? { kind: 'done' } : { kind: 'again', afterMs: againMs };
}

function reportIfSlow(draft: Draft, deps: AdapterDeps, verdicts: Verdicts): Disposable {
  const cancel = deps.clock.after(PROGRESS_MS, () => void report(draft, deps, verdicts));
  return { [Symbol.dispose]: cancel };
}

async function attempt(
  phase: Phase,
  draft: Draft,
  deps: AdapterDeps,
  signal: AbortSignal,
): Promise<PhaseOutcome> {
  try {
    return await phase.run(draft, deps, signal);
  } catch (error) {
    signal.throwIfAborted();
    const failure = failureOf(error);
    const { reason, terminal } = failure;
    deps.metrics.failure(reason);
    if (reason === 'InternalError') deps.log.error({ adapter: draft.key, err: error }, 'a phase failed');
    if (!terminal && draft.againMs === null) lookAgain(draft, FAILURE_RETRY_MS);
    // What pods should hold already is brought to them even while the source fails.
    return { verdict: verdictOf(failure), next: draft.record.target !== null };
  }
}
