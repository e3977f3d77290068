import type { LoraAdapter } from '../api/lora-adapter.ts';
import { durationMs } from '../api/quantity.ts';
import type { AdapterDeps } from './deps.ts';
import { type Draft, lookAgain } from './draft.ts';
import type { Looked } from './record.ts';

/** Of the interval, to either side: many that were settled as one do not look as one. */
const JITTER = 0.1;

/** How long until the source of a settled adapter is asked again; null: never, its content is pinned. Pure. */
export function pollAfterMs({ spec }: LoraAdapter, looked: Looked, nowMs: number): number | null {
  const { mode, interval } = spec.refresh;
  if (mode !== 'Poll') return null;
  const waitMs = durationMs(interval) * (1 - JITTER + 2 * JITTER * looked.random);
  return Math.max(0, looked.atMs + waitMs - nowMs);
}

/** The same of a draft, which is looked at again then. */
export function schedulePoll(draft: Draft, { clock, random }: AdapterDeps): number | null {
  const { record, adapter } = draft;
  const nowMs = clock.monotonicMs();
  const looked = record.source.looked ?? { atMs: nowMs, random: random() };
  if (record.source.looked === null) record.look(looked);
  const afterMs = pollAfterMs(adapter, looked, nowMs);
  if (afterMs !== null && afterMs > 0) lookAgain(draft, afterMs);
  return afterMs;
}
