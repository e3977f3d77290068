import { backoffMs } from '../../kube/clock.ts';
import { sourceOf } from '../../source/index.ts';
import type { Resolved } from '../../source/types.ts';
import type { AdapterDeps } from '../deps.ts';
import { intentOf, isSettledByStatus } from '../desired.ts';
import { type Draft, lookAgain, mark, NEXT, STOP, type Stage } from '../draft.ts';
import { failureOf } from '../failures.ts';
import type { AdapterRecord, SourceFailure } from '../record.ts';
import { recoverRecord } from '../recover.ts';

const RETRY = { baseMs: 2_000, maxMs: 300_000 };
/** Nobody tells when an object that was wrong has been put right; a HEAD now and then finds out. */
const TERMINAL_RETRY_MS = 300_000;
const RECOVER_RETRY_MS = 500;

/** Which revision the source names. A source is asked once per spec and refresh annotation: content is pinned. */
export const resolve: Stage = {
  condition: 'SourceResolved',
  whenSuspended: true,
  async run(draft, deps, signal) {
    if (draft.adapter.spec.source.push) return resolvePushed(draft, deps);
    const { record, adapter } = draft;
    if (!record.recovered) {
      record.recover(adapter.status, null, deps.spool);
      if (isSettledByStatus(adapter)) record.settle(intentOf(adapter));
    }
    if (!adapter.spec.suspend) await resolveSource(draft, deps, signal);
    return NEXT;
  },
};

function resolvePushed(draft: Draft, deps: AdapterDeps) {
  const { record } = draft;
  if (!recoverRecord(draft, deps)) {
    lookAgain(draft, RECOVER_RETRY_MS);
    return STOP;
  }
  if (record.desired === null) {
    mark(draft, deps, 'SourceResolved', { status: 'False', reason: 'WaitingForPush' });
    return NEXT;
  }
  const { step, pushedBy } = record.desired;
  const words = [`pushed${pushedBy ? ` by ${pushedBy}` : ''}`, ...(step === null ? [] : [`step ${step}`])];
  mark(draft, deps, 'SourceResolved', { status: 'True', reason: 'Resolved', message: words.join(', ') });
  return NEXT;
}

async function resolveSource(draft: Draft, deps: AdapterDeps, signal: AbortSignal): Promise<void> {
  const { record, adapter } = draft;
  const intent = intentOf(adapter);
  const { settledFor, resolved: found } = record.source;
  const failure = failureFor(record, intent);
  if (settledFor === intent) {
    markResolved(draft, deps, record.desired?.sourceVersion ?? '');
    return;
  }
  const leftMs = (failure?.retryAtMs ?? 0) - deps.clock.monotonicMs();
  if (failure !== null && leftMs > 0) {
    lookAgain(draft, leftMs);
    if (failure.sourceVersion === null) throw failure.error;
    markResolved(draft, deps, failure.sourceVersion);
    return;
  }
  const known = found?.intent === intent ? found : null;
  const resolved = known ?? (await askSource(draft, deps, signal));
  const isStillBad = failure?.sourceVersion === resolved.sourceVersion && failureOf(failure.error).terminal;
  if (isStillBad)
    noteSourceFailure(draft, deps, { sourceVersion: resolved.sourceVersion, error: failure.error });
  else record.resolve(intent, resolved.sourceVersion);
  markResolved(draft, deps, resolved.sourceVersion);
}

async function askSource(draft: Draft, deps: AdapterDeps, signal: AbortSignal): Promise<Resolved> {
  const startMs = deps.clock.monotonicMs();
  try {
    const source = sourceOf(draft.adapter, deps.sources);
    if (source === null) throw new TypeError('A pushed adapter has no source to ask');
    return await source.resolve(draft.adapter, signal);
  } catch (error) {
    signal.throwIfAborted();
    noteSourceFailure(draft, deps, { sourceVersion: null, error });
    throw error;
  } finally {
    deps.metrics.phase('resolve', deps.clock.monotonicMs() - startMs);
  }
}

function markResolved(draft: Draft, deps: AdapterDeps, sourceVersion: string): void {
  const uri = draft.adapter.spec.source.objectStore?.uri ?? '';
  const message = `${uri} is at ${sourceVersion}`;
  mark(draft, deps, 'SourceResolved', { status: 'True', reason: 'Resolved', message });
}

export function noteSourceFailure(
  draft: Draft,
  deps: AdapterDeps,
  failed: { sourceVersion: string | null; error: unknown },
): void {
  const { record, adapter } = draft;
  const intent = intentOf(adapter);
  const { terminal } = failureOf(failed.error);
  const failures = (failureFor(record, intent)?.failures ?? 0) + 1;
  const retryMs = terminal ? TERMINAL_RETRY_MS : backoffMs(failures, { ...RETRY, random: deps.random });
  const retryAtMs = deps.clock.monotonicMs() + retryMs;
  record.failSource({ ...failed, intent, failures, retryAtMs });
  lookAgain(draft, retryMs);
}

function failureFor({ source: { failure } }: AdapterRecord, intent: string): SourceFailure | null {
  return failure?.intent === intent ? failure : null;
}
