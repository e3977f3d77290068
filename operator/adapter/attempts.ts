import { LorikeetError } from '../../server/contract/errors.ts';
import { backoffMs } from '../kube/clock.ts';
import type { Pod } from '../pods/pod.ts';
import type { AdapterDeps } from './deps.ts';
import type { Draft } from './draft.ts';
import { failureOf } from './failures.ts';
import type { Attempt } from './plan.ts';

const RETRY = { baseMs: 1_000, maxMs: 300_000 };

/** Remembers what a pod answered, so that it is asked again after a delay that doubles, or not at all. */
export function noteFailure(
  draft: Draft,
  deps: AdapterDeps,
  pod: Pod,
  failed: { digest: string; error: unknown },
): void {
  const { digest, error } = failed;
  const { record, key, adapter } = draft;
  const failure = failureOf(error);
  const code = error instanceof LorikeetError ? error.code : 'Unreachable';
  const bootId = pod.state?.bootId ?? '';
  const before = record.attemptOf(pod.uid);
  const repeated = before?.digest === digest && before.bootId === bootId;
  const failures = repeated ? before.failures + 1 : 1;
  const retryMs = backoffMs(failures, { ...RETRY, random: deps.random });
  const retryAtMs = deps.clock.monotonicMs() + retryMs;
  const attempt: Attempt = {
    bootId,
    digest,
    failures,
    code,
    message: failure.message,
    terminal: failure.terminal,
    retryAtMs,
    retryAt: new Date(deps.clock.date().getTime() + retryMs),
    used: pod.state?.used ?? null,
  };
  record.failPod(pod.uid, attempt, failure);
  deps.metrics.failure(code);
  if (repeated && before.code === code) return;
  const about = { adapter: key, pod: pod.name, revision: digest.slice(0, 19), code, reason: failure.message };
  deps.log.warn({ ...about, ...(failure.terminal ? {} : { retryMs: Math.round(retryMs) }) }, 'pod failed');
  if (!failure.terminal)
    deps.events.event(adapter, 'Warning', 'PodError', `${pod.name}: ${code}: ${failure.message}`);
}
