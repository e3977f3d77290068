import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import type { EngineOptions, ModelDescriptor } from '../../../native/types.ts';
import { type Case, DECODE_PROMPT_TOKENS, type Effort, PREFILL_TOKENS } from './cases.ts';
import { runChild } from './child.ts';
import type { Peer } from './peer.ts';
import type { Shape } from './shape.ts';
import type { TurnResult } from './trace.ts';

export interface OursJob {
  shape: Shape;
  options: EngineOptions;
  cases: Case[];
  effort: Effort;
}

/** Our engine, opened anew in a process of its own for each turn. */
export function ours(shape: Shape, model: ModelDescriptor, cases: Case[], effort: Effort): Peer {
  const job: OursJob = { shape, options: engineOptions(model), cases, effort };
  return {
    name: 'ours',
    unavailable: null,
    turn: () => runChild<TurnResult>(resolve(import.meta.dirname, 'ours-turn.ts'), job),
    close: async () => {},
  };
}

/** All that a bench asks of the engine; a new option of it goes here. */
function engineOptions(model: ModelDescriptor): EngineOptions {
  const { layers, kvHeads, headDim } = model.config;
  const tokens = PREFILL_TOKENS + 16 * (DECODE_PROMPT_TOKENS + 112);
  return {
    model,
    backend: process.env.LORIKEET_BENCH_BACKEND || 'auto',
    dtype: 'auto',
    slots: 16,
    maxRank: 16,
    // K and V in float32 at most.
    kvBytes: tokens * layers * 2 * kvHeads * headDim * 4,
    maxBatch: 16,
    maxBatchTokens: PREFILL_TOKENS,
    maxWaiting: 64,
    threads: availableParallelism(),
    prefixCache: false,
  };
}
