import { type Case, DECODE_PROMPT_TOKENS, type Effort, PREFILL_TOKENS, promptTokens } from './cases.ts';

/** When a sequence was asked for, and when each of its tokens came. */
export interface Trace {
  submittedMs: number;
  timesMs: number[];
  /** The first token, where the engine says which it was. */
  firstToken: number | null;
}

/** What one engine does in its turn: tokens per second by case name, and what else it found out. */
export interface TurnResult {
  /** Which of its kernels or releases it was. */
  about: string | null;
  rates: Record<string, number>;
  /** The greedy first tokens of `decode-16`: two engines with the same weights mostly agree. */
  firstTokens: number[];
  load: { openMs: number; readFileMs: number } | null;
  /** By case name: the share of each part of a step in all steps' time. */
  phases?: Record<string, Record<string, number>>;
}

/** Runs these prompts at once until each has `maxTokens` tokens. */
export type Generate = (prompts: number[][], maxTokens: number, item: Case) => Promise<Trace[]>;

const WARM_PREFILL_TOKENS = 64;
/** Sequences may start some steps apart; the first ones go on until the last is measured. */
const SLACK_TOKENS = 4;

export async function measureCase(
  item: Case,
  effort: Effort,
  vocab: number,
  generate: Generate,
): Promise<{ rate: number; firstTokens: number[] }> {
  if (item.kind === 'prefill') {
    await generate([promptTokens(99, WARM_PREFILL_TOKENS, vocab)], 1, item);
    const rates: number[] = [];
    for (let i = 0; i < effort.prefills; i++) {
      // Another prompt each time: nobody gets it from a cache.
      const traces = await generate([promptTokens(100 + i, PREFILL_TOKENS, vocab)], 1, item);
      rates.push(prefillRate(traces[0] as Trace));
    }
    return { rate: median(rates), firstTokens: [] };
  }
  const prompts = Array.from({ length: item.sequences }, (_, i) =>
    promptTokens(i, DECODE_PROMPT_TOKENS, vocab),
  );
  await generate(prompts, 2, item);
  const traces = await generate(prompts, 1 + effort.decodeTokens + SLACK_TOKENS, item);
  const firstTokens = traces.flatMap(({ firstToken }) => (firstToken === null ? [] : [firstToken]));
  return { rate: decodeRate(traces, effort.decodeTokens), firstTokens };
}

/** Tokens per second of all sequences, from the last one's first token over `tokens` more of its own. */
export function decodeRate(traces: Trace[], tokens: number): number {
  const last = traces.reduce((a, b) => ((b.timesMs[0] ?? 0) >= (a.timesMs[0] ?? 0) ? b : a));
  const begin = last.timesMs[0] ?? 0;
  const end = last.timesMs[tokens] ?? Number.NaN;
  const counted = traces.flatMap(({ timesMs }) => timesMs.filter((ms) => ms > begin && ms <= end)).length;
  return (1000 * counted) / (end - begin);
}

function prefillRate({ submittedMs, timesMs }: Trace): number {
  return (1000 * PREFILL_TOKENS) / ((timesMs[0] ?? Number.NaN) - submittedMs);
}

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}
