import type { Acceptance, Fence } from '../../server/contract/adapter-api.ts';
import { isOlderFence } from '../../server/contract/fence.ts';
import { findCondition } from '../api/conditions.ts';
import { type LoraAdapter, type RevisionRecord, shortDigest } from '../api/lora-adapter.ts';
import { REFRESH_ANNOTATION, REFRESHED_ANNOTATION } from '../api/names.ts';
import type { Pod } from '../pods/pod.ts';
import { adapterIn, revisionIn } from './plan.ts';

/** Everything that, when it changes, makes the source be resolved anew. Content that changes under it does not. */
export function intentOf(adapter: LoraAdapter): string {
  const { source, verify, update } = adapter.spec;
  // Without the last where it is absent: what was settled before there was such a field stays so.
  const pinned = update?.revision === undefined ? [] : [update.revision];
  return JSON.stringify([source, verify ?? null, refreshOf(adapter), ...pinned]);
}

export function refreshOf(adapter: LoraAdapter): string | null {
  return adapter.metadata.annotations?.[REFRESH_ANNOTATION] ?? null;
}

/** The last one that was acted on. */
export function refreshedOf(adapter: LoraAdapter): string | null {
  return adapter.metadata.annotations?.[REFRESHED_ANNOTATION] ?? null;
}

/** True where status tells how this very spec was resolved, by an operator before this one. */
export function isSettledByStatus(adapter: LoraAdapter): boolean {
  const { generation } = adapter.metadata;
  const conditions = adapter.status?.conditions;
  const holds = (['SourceResolved', 'Verified'] as const).every((type) => {
    const condition = findCondition(conditions, type);
    return condition?.status === 'True' && condition.observedGeneration === generation;
  });
  return (
    holds && adapter.status?.desiredRevision !== undefined && refreshedOf(adapter) === refreshOf(adapter)
  );
}

export interface Reported {
  pod: Pod;
  digest: string;
  /** When an operator accepted it. */
  accepted: Fence;
  /** Where that was a rollback. */
  rollback?: Acceptance['rollback'];
}

/** What a pod is told of when its revision was accepted; null where nobody pushed it. */
export function acceptanceOf({ accepted, rollback }: RevisionRecord, object: string): Acceptance | null {
  if (accepted === undefined) return null;
  const { from, reachedStep } = rollback ?? {};
  return {
    ...accepted,
    object,
    ...(from !== undefined && { rollback: { from, reachedStep: reachedStep ?? null } }),
  };
}

/**
 * What pods have of a pushed adapter that is newer than what is known of it: where the operator that accepted it died
 * before it wrote status, or where the pod was silent when its successor looked. Null where nothing is newer. Pure.
 *
 *   known, accepted at f | last accepted in pods, at g | answer
 *   ---------------------|-----------------------------|-----------------------------------------------
 *   anything             | none                        | null  a pod that restarted knows nothing
 *   nothing              | P                           | P
 *   D, f unknown         | P                           | P     an operator that wrote no f wrote status
 *   D                    | P, g after f                | P     also where D was there before, or P is D
 *   D                    | P, g not after f            | null
 */
export function newerInPods(
  known: RevisionRecord | null,
  pods: readonly Pod[],
  { servedName, uid }: { servedName: string; uid: string },
): Reported | null {
  const newest = lastAccepted(pods, servedName, uid);
  if (newest === null || known?.accepted === undefined) return newest;
  return isOlderFence(known.accepted, newest.accepted) ? newest : null;
}

function lastAccepted(pods: readonly Pod[], servedName: string, uid: string): Reported | null {
  let newest: Reported | null = null;
  for (const pod of pods) {
    const adapter = adapterIn(pod.state, servedName);
    if (!adapter?.current || !adapter.fence) continue;
    // A pod that was silent while the object of that name was deleted and made again.
    if (adapter.accepted && adapter.accepted.object !== uid) continue;
    // A server that is older than `accepted` only tells who activated it last.
    const { term, sequence } = adapter.accepted ?? adapter.fence;
    const rollback = adapter.accepted?.rollback;
    const reported = { pod, digest: adapter.current, accepted: { term, sequence }, rollback };
    if (newest === null || isOlderFence(newest.accepted, reported.accepted)) newest = reported;
  }
  return newest;
}

/** What can be said of a revision that a pod reports; `known` is what was desired before. */
export function recordFromPod(
  { pod, digest, accepted, rollback }: Reported,
  { servedName, known, now }: { servedName: string; known: RevisionRecord | null; now: Date },
): RevisionRecord {
  const { step = null, bytes = 0, rank = 0, modules = [] } = revisionIn(pod.state, servedName, digest) ?? {};
  const how = { accepted, ...(rollback && { rollback }) };
  if (known?.digest !== digest)
    return revisionOf({ digest, step, bytes, rank, targetModules: modules, ...how }, timestamp(now));
  const { rollback: _, ...same } = known;
  return { ...same, step: step ?? known.step, ...how };
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
