import { LorikeetError } from '../../server/contract/errors.ts';
import { backoffMs } from '../kube/clock.ts';
import type { Pod } from '../pods/pod.ts';
import type { AdapterDeps } from './deps.ts';
import type { Draft } from './draft.ts';
import { failureOf } from './failures.ts';
import type { Attempt } from './plan.ts';
import { noteRefusal } from './records.ts';

const RETRY = { baseMs: 1_000, maxMs: 300_000 };

export function noteSuccess(draft: Draft, pod: Pod): void {
  draft.record.attempts.delete(pod.uid);
}

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
  const before = record.attempts.get(pod.uid);
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
  };
  record.attempts.set(pod.uid, attempt);
  if (failure.terminal && !record.refused.has(digest)) {
    noteRefusal(record, digest, failure);
    // Pods that had activated it already go back to the last good revision, which needs a later fence.
    record.sequence = deps.records.nextSequence();
  }
  deps.metrics.failure(code);
  if (repeated && before.code === code) return;
  const about = { adapter: key, pod: pod.name, revision: digest.slice(0, 19), code, reason: failure.message };
  deps.log.warn({ ...about, ...(failure.terminal ? {} : { retryMs: Math.round(retryMs) }) }, 'pod failed');
  if (!failure.terminal)
    deps.events.event(adapter, 'Warning', 'PodError', `${pod.name}: ${code}: ${failure.message}`);
}

/** Pods come and go; what they answered must not stay for ever. */
export function forgetGonePods(draft: Draft, pods: readonly Pod[]): void {
  const present = new Set(pods.map((pod) => pod.uid));
  for (const uid of draft.record.attempts.keys()) {
    if (!present.has(uid)) draft.record.attempts.delete(uid);
  }
}
