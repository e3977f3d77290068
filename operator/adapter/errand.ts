import { laneOf, sourceOf } from '../source/index.ts';
import type { Source, SourcedAdapter } from '../source/types.ts';
import type { AdapterDeps } from './deps.ts';
import { type Draft, lookAgain } from './draft.ts';

/** A source that answers sooner is not worth a word in status. */
const QUIET_MS = 1_000;
/** New pods wait for what a source is about to give, not for what it may give some day. */
const SLOW_MS = 10_000;

interface Asked {
  /** `content`: what the adapter should be; `bytes`: once more what it is. */
  kind: 'content' | 'bytes';
  phase: 'resolve' | 'fetch';
  question: string;
  signal: AbortSignal;
  /** Whose source it is; the adapter's own by default. */
  from?: SourcedAdapter;
}

/** Asks the adapter's source, without waiting for it. Null: no answer yet; the adapter is looked at again when there is. */
export async function sendErrand<T>(
  draft: Draft,
  deps: AdapterDeps,
  { kind, phase, question, signal, from = draft.adapter }: Asked,
  ask: (source: Source, life: AbortSignal) => Promise<T>,
): Promise<T | null> {
  const { key } = draft;
  const run = async (life: AbortSignal): Promise<T> => {
    const startMs = deps.clock.monotonicMs();
    try {
      const source = sourceOf(from, deps.sources);
      if (source === null) throw new TypeError('A pushed adapter has no source to ask');
      return await ask(source, life);
    } finally {
      deps.metrics.phase(phase, deps.clock.monotonicMs() - startMs);
    }
  };
  const lane = laneOf(from);
  const { ageMs, begun, result } = deps.errands.ask({ key, kind, question, lane, signal, run });
  if (result !== null) return await result;
  draft.askedMs = Math.min(draft.askedMs ?? ageMs, ageMs);
  draft.quietMs = begun ? QUIET_MS : SLOW_MS;
  for (const ms of [QUIET_MS, SLOW_MS]) if (ageMs < ms) lookAgain(draft, ms - ageMs);
  return null;
}

/** One that has only just been asked, or waits for its turn behind many others: each would cost a status of its own. */
export function isJustAsked({ askedMs, quietMs }: Draft): boolean {
  return askedMs !== null && askedMs < quietMs;
}

export function isBeingAnswered({ askedMs }: Draft): boolean {
  return askedMs !== null && askedMs < SLOW_MS;
}
