import type { Fence } from '../../server/contract/adapter-api.ts';
import { isOlderFence } from '../../server/contract/fence.ts';
import { findCondition } from '../api/conditions.ts';
import {
  type LoraAdapter,
  type LoraAdapterStatus,
  type RevisionRecord,
  shortDigest,
} from '../api/lora-adapter.ts';
import { REFRESH_ANNOTATION, REFRESHED_ANNOTATION } from '../api/names.ts';
import type { Pod } from '../pods/pod.ts';
import { adapterIn, revisionIn } from './plan.ts';

/** Everything that, when it changes, makes the source be resolved anew. Content that changes under it does not. */
export function intentOf(adapter: LoraAdapter): string {
  const { source, verify } = adapter.spec;
  return JSON.stringify([source, verify ?? null, refreshOf(adapter)]);
}

export function refreshOf(adapter: LoraAdapter): string | null {
  return adapter.metadata.annotations?.[REFRESH_ANNOTATION] ?? null;
}

/** True where status tells how this very spec was resolved, by an operator before this one. */
export function isSettledByStatus(adapter: LoraAdapter): boolean {
  const { generation, annotations } = adapter.metadata;
  const conditions = adapter.status?.conditions;
  const holds = (['SourceResolved', 'Verified'] as const).every((type) => {
    const condition = findCondition(conditions, type);
    return condition?.status === 'True' && condition.observedGeneration === generation;
  });
  const refreshed = annotations?.[REFRESHED_ANNOTATION] ?? null;
  return holds && adapter.status?.desiredRevision !== undefined && refreshed === refreshOf(adapter);
}

interface Reported {
  pod: Pod;
  digest: string;
  fence: Fence;
}

/**
 * The digest that a pushed adapter should have, after the operator that accepted it died. Status is written at most
 * every two seconds, so pods may have a newer one; a pod that restarted may have none, so status may. Pure.
 *
 *   status says D | newest fence in pods | answer
 *   --------------|----------------------|---------------------------------------------------------
 *   nothing       | P                    | P
 *   D             | none                 | D
 *   D             | D                    | D
 *   D, step s     | P, step t            | the greater step
 *   D             | P, which status      | D   P was desired before D
 *                 | names as earlier     |
 *   D             | P                    | P   accepted after status was last written
 */
export function recoverPushed(
  status: LoraAdapterStatus | undefined,
  pods: readonly Pod[],
  servedName: string,
): { digest: string; pod: Pod | null } | null {
  const newest = newestReported(pods, servedName);
  const told = status?.desiredRevision ?? null;
  if (newest === null) return told === null ? null : { digest: told.digest, pod: null };
  if (told === null) return newest;
  if (told.digest === newest.digest) return { digest: told.digest, pod: null };
  const step = stepIn(newest, servedName);
  const isOlder =
    step !== null && told.step !== null
      ? step <= told.step
      : [status?.currentRevision, ...(status?.previousRevisions ?? [])].some(
          (r) => r?.digest === newest.digest,
        );
  return isOlder ? { digest: told.digest, pod: null } : newest;
}

function newestReported(pods: readonly Pod[], servedName: string): Reported | null {
  let newest: Reported | null = null;
  for (const pod of pods) {
    const adapter = adapterIn(pod.state, servedName);
    if (!adapter?.current || !adapter.fence) continue;
    const reported = { pod, digest: adapter.current, fence: adapter.fence };
    if (newest === null || isOlderFence(newest.fence, reported.fence)) newest = reported;
  }
  return newest;
}

function stepIn({ pod, digest }: Reported, servedName: string): number | null {
  return revisionIn(pod.state, servedName, digest)?.step ?? null;
}

/** What can be said of a revision that only a pod knows. */
export function recordFromPod(pod: Pod, servedName: string, digest: string, now: Date): RevisionRecord {
  const { step = null, bytes = 0, rank = 0, modules = [] } = revisionIn(pod.state, servedName, digest) ?? {};
  return revisionOf({ digest, step, bytes, rank, targetModules: modules }, timestamp(now));
}

/** What is remembered of a revision. */
export function revisionOf(known: Omit<RevisionRecord, 'short' | 'at'>, at: string): RevisionRecord {
  const targetModules = known.targetModules.toSorted();
  return { ...known, targetModules, short: shortDigest(known.digest), at };
}

/** Seconds, as Kubernetes writes times. */
export function timestamp(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, 'Z');
}
