import { RELAY_PODS_MAX } from '../../../server/contract/adapter-api.ts';
import type { RevisionRecord } from '../../api/lora-adapter.ts';
import { mayRelay, type Pod } from '../../pods/pod.ts';
import type { SpooledRevision } from '../../spool/spool.ts';
import { type AdapterDeps, fenceOf } from '../deps.ts';
import type { Draft } from '../draft.ts';
import { delivered, waived } from './delivered.ts';

interface Shipment {
  target: RevisionRecord;
  bytes: SpooledRevision;
  signal: AbortSignal;
}

/**
 * Brings a revision into pods that pass it on to each other, where they are many, so that its bytes leave the operator once.
 * Returns those that have it; whoever is left, as one before it fell out, is to be served by itself.
 */
export async function stageByRelay(
  draft: Draft,
  deps: AdapterDeps,
  pods: readonly Pod[],
  { target, bytes, signal }: Shipment,
): Promise<Set<Pod>> {
  // One that failed last time would keep those behind it waiting.
  const fit = pods.filter((pod) => mayRelay(pod) && draft.record.attemptOf(pod.uid) === null);
  const [first, ...behind] = fit.slice(0, RELAY_PODS_MAX + 1);
  if (first === undefined || fit.length < deps.relayFrom) return new Set();
  const { digest, step } = target;
  const reply = await first.client
    .upload(draft.servedName, bytes.stream(), {
      size: bytes.size,
      config: bytes.config,
      step,
      fence: fenceOf(deps, draft.record),
      allow: waived(draft),
      relay: behind.map(({ adminUrl }) => adminUrl),
      signal,
    })
    // Asked by itself it says the same again, and is noted for it.
    .catch(() => null);
  signal.throwIfAborted();
  const answers = new Map(reply?.relayed?.map(({ url, revision }) => [url, revision]));
  answers.set(first.adminUrl, reply?.revision ?? null);
  const served = fit.filter(({ adminUrl }) => answers.get(adminUrl) === digest);
  await Promise.all(served.map((pod) => delivered(draft, deps, pod, digest)));
  return new Set(served);
}
