import type { Lock } from '../../server/transfer/serial.ts';
import { type RevisionRecord, shortDigest } from '../api/lora-adapter.ts';
import type { AdapterDeps } from './deps.ts';
import { newerInPods, type Reported, recordFromPod } from './desired.ts';
import type { Draft } from './draft.ts';

/** How long a pod may take to say what it holds before what it holds is decided without it; what it says later is heeded. */
const REPORT_MS = 5_000;

/**
 * Finds out what a pushed adapter should have after the operator started anew. False: not before the pods, whose word
 * may be newer than status, have reported.
 */
export function recoverRecord(draft: Draft, deps: AdapterDeps): boolean {
  const { record, adapter, placement, servedName } = draft;
  if (record.recovered) return true;
  const isAwaited = placement.members.some(
    (pod) => pod.state === null && deps.fleet.followedMs(pod) < REPORT_MS,
  );
  if (isAwaited) return false;
  const told = adapter.status?.desiredRevision ?? null;
  const found = newerInPods(told, placement.members, { servedName, uid: record.uid });
  const newer = found && takeFromPod(found, told, { draft, deps });
  record.recover(adapter.status, newer, deps.spool);
  if (record.desired !== null) record.keepConfig(deps.spool.open(record.desired.digest)?.config ?? null);
  return true;
}

/** A pod that was silent then may come back with what a trainer was told it serves, and nobody else knows of. */
export function heedPods(lock: Lock, draft: Draft, deps: AdapterDeps): void {
  const { record, adapter, placement, servedName } = draft;
  const { leading } = deps.leader;
  const found = newerInPods(record.desired, placement.members, { servedName, uid: record.uid });
  // What this operator told pods itself, it knows better.
  if (found === null || leading === null || found.accepted.term >= leading.term) return;
  const newer = takeFromPod(found, record.desired, { draft, deps });
  record.adopt(lock, newer, { keep: adapter.spec.update.keepRevisions, spool: deps.spool });
  record.keepConfig(deps.spool.open(newer.digest)?.config ?? null);
}

function takeFromPod(
  found: Reported,
  known: RevisionRecord | null,
  { draft, deps }: { draft: Draft; deps: AdapterDeps },
): RevisionRecord {
  const about = { adapter: draft.key, pod: found.pod.name, revision: shortDigest(found.digest) };
  deps.log.info(about, 'desired revision taken from a pod: it is newer than what was known');
  return recordFromPod(found, { servedName: draft.servedName, known, now: deps.clock.date() });
}
