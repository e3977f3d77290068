import type { Pod } from '../../pods/pod.ts';
import type { AdapterDeps } from '../deps.ts';
import type { Draft } from '../draft.ts';
import { whenReported } from './reported.ts';

/** A pod reports what it was given at once; this only bounds how long that is waited for. */
const REPORT_MS = 2_000;

/** What a pushed revision may do without was decided when it was pushed. */
export function waived({ adapter }: Draft): string[] {
  return adapter.spec.source.push ? ['zero_effect'] : [];
}

/** Called when a pod said that it has a revision; returns when it reports it. */
export async function delivered(draft: Draft, deps: AdapterDeps, pod: Pod, digest: string): Promise<void> {
  deps.metrics.loaded(pod.uid, draft.record.uid);
  await whenReported(draft, deps, pod, { digest, as: 'held', waitMs: REPORT_MS });
}
