import type { PodState } from '../../../server/contract/adapter-api.ts';
import type { Pod } from '../../pods/pod.ts';
import type { AdapterDeps } from '../deps.ts';
import type { Draft } from '../draft.ts';
import { adapterIn, type Confirmed, revisionIn } from '../plan.ts';

/** A watch that tells nothing for this long was cut before, and the next one began with what is so. */
const CONFIRMED_MS = 30_000;

type Word = Pick<Confirmed, 'digest' | 'as'>;

/**
 * Called when a pod has answered that it did what it was asked. Returns when it reports that too, or after `waitMs`:
 * then its answer is remembered, so that it is not asked the same once more.
 */
export async function whenReported(
  { record, servedName }: Draft,
  { clock, fleet }: AdapterDeps,
  pod: Pod,
  { digest, as, waitMs }: Word & { waitMs: number },
): Promise<void> {
  const bootId = pod.state?.bootId ?? '';
  record.clearPod(pod.uid);
  const shows = (state: PodState) =>
    as === 'current'
      ? adapterIn(state, servedName)?.current === digest
      : revisionIn(state, servedName, digest) !== undefined;
  const isReported = await fleet.whenState(pod, shows, waitMs);
  if (isReported || !pod.reachable) return;
  record.awaitReport(pod.uid, { bootId, digest, as, untilMs: clock.monotonicMs() + CONFIRMED_MS });
}
