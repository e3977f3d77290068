import { shortDigest } from '../api/lora-adapter.ts';
import type { AdapterDeps } from './deps.ts';
import { recordFromPod, recoverPushed, restoreFromStatus } from './desired.ts';
import type { Draft } from './draft.ts';

/** How long a pod may take to say what it holds before what it holds is decided without it. */
const REPORT_MS = 10_000;

/**
 * Finds out what a pushed adapter should have after the operator started anew. False: not before the pods, whose word
 * may be newer than status, have reported.
 */
export function recoverRecord(draft: Draft, deps: AdapterDeps): boolean {
  const { record, adapter, servedName, placement } = draft;
  if (record.recovered) return true;
  const pods = placement.desired;
  const isAwaited = pods.some((pod) => pod.state === null && deps.fleet.followedMs(pod) < REPORT_MS);
  if (isAwaited) return false;
  restoreFromStatus(record, adapter.status);
  record.recovered = true;
  const found = recoverPushed(adapter.status, pods, servedName);
  if (found?.pod) {
    const earlier = record.desired;
    record.desired = recordFromPod(found.pod, servedName, found.digest, deps.clock.date());
    if (earlier) record.previous = [earlier, ...record.previous];
    const about = { adapter: draft.key, pod: found.pod.name, revision: shortDigest(found.digest) };
    deps.log.info(about, 'desired revision taken from a pod: it is newer than status');
  }
  if (record.desired === null) return true;
  deps.spool.pin(record.desired.digest, record.uid);
  record.config = deps.spool.open(record.desired.digest)?.config ?? null;
  return true;
}
