import { shortDigest } from '../api/lora-adapter.ts';
import type { AdapterDeps } from './deps.ts';
import { recordFromPod, recoverPushed } from './desired.ts';
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
  const found = recoverPushed(adapter.status, pods, servedName);
  const newer = found?.pod ? recordFromPod(found.pod, servedName, found.digest, deps.clock.date()) : null;
  record.recover(adapter.status, newer, deps.spool);
  if (found?.pod) {
    const about = { adapter: draft.key, pod: found.pod.name, revision: shortDigest(found.digest) };
    deps.log.info(about, 'desired revision taken from a pod: it is newer than status');
  }
  if (record.desired !== null) record.keepConfig(deps.spool.open(record.desired.digest)?.config ?? null);
  return true;
}
