import { isDeepStrictEqual } from 'node:util';
import type { Verdict } from '../../api/conditions.ts';
import { type LoraAdapter, shortDigest } from '../../api/lora-adapter.ts';
import { durationMs } from '../../api/quantity.ts';
import { backoffMs } from '../../kube/clock.ts';
import { placeOf } from '../../source/index.ts';
import type { Source } from '../../source/types.ts';
import type { AdapterDeps } from '../deps.ts';
import { intentOf, isSettledByStatus } from '../desired.ts';
import { type Draft, lookAgain, type Phase, type PhaseOutcome, STOP } from '../draft.ts';
import { sendErrand } from '../errand.ts';
import { failureOf } from '../failures.ts';
import { followPin } from '../pin.ts';
import { schedulePoll } from '../poll.ts';
import { heedPods, recoverRecord } from '../recover.ts';
import { limitsOf, standingFailure } from '../standing.ts';
import { awaitedBy } from '../vigil.ts';

const RETRY = { baseMs: 2_000, maxMs: 300_000 };
/** Nobody tells when an object that was wrong has been put right; a HEAD now and then finds out. */
const TERMINAL_RETRY_MS = 300_000;
const RECOVER_RETRY_MS = 500;

/**
 * Which revision the source names. A source is asked once per spec and refresh annotation, for content is pinned; and now
 * and then where spec.refresh says so.
 */
export const resolve: Phase = {
  condition: 'SourceResolved',
  whenSuspended: true,
  async run(draft, deps, signal) {
    if (draft.adapter.spec.source.push) return await resolvePushed(draft, deps);
    const { record, adapter } = draft;
    if (!record.recovered) {
      record.recover(adapter.status, null, deps.spool);
      if (isSettledByStatus(adapter)) record.settle(intentOf(adapter));
    }
    if (adapter.spec.suspend) return { verdict: null, next: true };
    const verdict = (await followPin(draft, deps)) ?? (await resolveSource(draft, deps, signal));
    return { verdict, next: true };
  },
};

async function resolvePushed(draft: Draft, deps: AdapterDeps): Promise<PhaseOutcome> {
  if (!recoverRecord(draft, deps)) {
    lookAgain(draft, RECOVER_RETRY_MS);
    return STOP;
  }
  await deps.mutexes.run(draft.key, async (lock) => heedPods(lock, draft, deps));
  const pinned = await followPin(draft, deps);
  if (pinned !== null) return { verdict: pinned, next: true };
  const { desired } = draft.record;
  if (desired === null) return { verdict: { status: 'False', reason: 'WaitingForPush' }, next: true };
  const { step, pushedBy, rollback } = desired;
  const words = [`pushed${pushedBy ? ` by ${pushedBy}` : ''}`, ...(step === null ? [] : [`step ${step}`])];
  if (rollback !== undefined) words.push(`rolled back from ${shortDigest(rollback.from)}`);
  return { verdict: { status: 'True', reason: 'Resolved', message: words.join(', ') }, next: true };
}

async function resolveSource(draft: Draft, deps: AdapterDeps, signal: AbortSignal): Promise<Verdict | null> {
  const { record, adapter } = draft;
  const intent = intentOf(adapter);
  const { settledFor, resolved: found } = record.source;
  const isSettled = settledFor === intent;
  const settledVersion = record.desired?.sourceVersion ?? '';
  if (isSettled && schedulePoll(draft, deps) !== 0) return resolvedAt(adapter, settledVersion);
  const failure = standingFailure(draft);
  const leftMs = (failure?.retryAtMs ?? 0) - deps.clock.monotonicMs();
  if (failure !== null && leftMs > 0) {
    lookAgain(draft, leftMs);
    if (failure.sourceVersion === null) throw failure.error;
    return resolvedAt(adapter, failure.sourceVersion);
  }
  const known = found?.intent === intent ? found : null;
  const question = { phase: 'resolve', sourceVersion: null, signal } as const;
  const resolved =
    known ?? (await askSource(draft, deps, question, (source, life) => source.resolve(adapter, life)));
  if (resolved === null) {
    if (isSettled) return failure === null ? resolvedAt(adapter, settledVersion) : null;
    return { status: 'Unknown', reason: 'Pending', message: 'The source is being asked.' };
  }
  if (isSettled && resolved.sourceVersion === settledVersion) {
    record.settle(intent);
    schedulePoll(draft, deps);
    return resolvedAt(adapter, settledVersion);
  }
  const isStillBad = failure?.sourceVersion === resolved.sourceVersion && failureOf(failure.error).terminal;
  if (isStillBad)
    noteSourceFailure(draft, deps, { sourceVersion: resolved.sourceVersion, error: failure.error });
  else record.resolve(intent, resolved.sourceVersion);
  return resolvedAt(adapter, resolved.sourceVersion);
}

interface Question {
  phase: 'resolve' | 'fetch';
  /** That the answer is about; null: that is what is asked. */
  sourceVersion: string | null;
  signal: AbortSignal;
}

/** Null: the source has not answered yet. How it fails is remembered: it is asked again after a while. */
export async function askSource<T>(
  draft: Draft,
  deps: AdapterDeps,
  { phase, sourceVersion, signal }: Question,
  ask: (source: Source, life: AbortSignal) => Promise<T>,
): Promise<T | null> {
  const { adapter, placement } = draft;
  const question = JSON.stringify([phase, intentOf(adapter), sourceVersion, limitsOf(placement)]);
  try {
    return await sendErrand(draft, deps, { kind: 'content', phase, question, signal }, ask);
  } catch (error) {
    signal.throwIfAborted();
    noteSourceFailure(draft, deps, { sourceVersion, error });
    throw error;
  }
}

function resolvedAt(adapter: LoraAdapter, sourceVersion: string): Verdict {
  const message = `${placeOf(adapter)} is at ${sourceVersion}`;
  return { status: 'True', reason: 'Resolved', message };
}

function noteSourceFailure(
  draft: Draft,
  deps: AdapterDeps,
  failed: { sourceVersion: string | null; error: unknown },
): void {
  const { record, adapter, placement } = draft;
  const intent = intentOf(adapter);
  const before = standingFailure(draft);
  const failures = (before?.failures ?? 0) + 1;
  const retryMs = retryMsOf(draft, deps, { error: failed.error, failures });
  const retryAtMs = deps.clock.monotonicMs() + retryMs;
  const details = detailsOf(failed.error);
  if (before === null || !isDeepStrictEqual(detailsOf(before.error), details))
    deps.log.warn({ adapter: draft.key, ...details }, 'the source failed');
  record.failSource({ ...failed, intent, limits: limitsOf(placement), failures, retryAtMs });
  lookAgain(draft, retryMs);
}

/** What only the operator's own log says; conditions and events have the words alone. */
function detailsOf(error: unknown): { reason: string; message: string; code?: unknown } {
  const { reason, message } = failureOf(error);
  const { code } = ((error as Error).cause ?? {}) as { code?: unknown };
  return { reason, message, ...(typeof code === 'string' && { code }) };
}

function retryMsOf(
  { adapter }: Draft,
  { vigil, random }: AdapterDeps,
  { error, failures }: { error: unknown; failures: number },
): number {
  const { reason, terminal } = failureOf(error);
  const { mode, interval } = adapter.spec.refresh;
  if (terminal)
    return mode === 'Poll' ? Math.min(durationMs(interval), TERMINAL_RETRY_MS) : TERMINAL_RETRY_MS;
  const awaited = awaitedBy(adapter, reason);
  return awaited === null ? backoffMs(failures, { ...RETRY, random }) : vigil.lookMs(awaited);
}
