import { engineFailure, OpenAiError } from './errors.ts';
import { clamp } from './logprobs.ts';
import type { Generation } from './plan.ts';
import { type Entrance, takeInAll } from './sequences.ts';

/** What a request wants to know of its answer besides how likely it was. */
export interface ScoresWanted {
  /** How likely the base finds it. */
  base: boolean;
  /** How likely other revisions find it, by what `model` would call them. */
  under: string[];
}

/** One log-probability per token of a choice. */
export interface Scores {
  base_logprobs?: number[];
  score_under?: Record<string, { revision: string; step: number | null; logprobs: number[] }>;
}

interface Judge {
  name: string;
  /** Null: the base. */
  pinned: { name: string; digest: string; step: number | null } | null;
}

/**
 * Asks other weights how likely they find what was generated. They read prompt and answer once, in the batch of the
 * other requests; of the prompt they compute what is not in the prefix cache.
 */
export class Scorer {
  readonly #serving: Entrance;
  readonly #base: Judge | null;
  readonly #others: Judge[];

  /** Throws where one of the names means nothing. What a name means does not change until the answer is there. */
  constructor(serving: Entrance, wanted: ScoresWanted) {
    this.#serving = serving;
    this.#base = wanted.base ? { name: 'base', pinned: null } : null;
    this.#others = wanted.under.map((name) => ({ name, pinned: serving.adapters.pin(name) }));
  }

  get isAsked(): boolean {
    return this.#base !== null || this.#others.length > 0;
  }

  async score(generation: Generation, ids: number[], signal: AbortSignal): Promise<Scores> {
    const ask = (judge: Judge) => this.#ask(judge, generation, ids, signal);
    const [base, ...others] = await Promise.all([
      this.#base === null ? null : ask(this.#base),
      ...this.#others.map(ask),
    ]);
    const entries = this.#others.map(({ name, pinned }, index) => {
      const logprobs = others[index] as number[];
      return [name, { revision: pinned?.digest ?? null, step: pinned?.step ?? null, logprobs }];
    });
    return {
      ...(base === null ? {} : { base_logprobs: base as number[] }),
      ...(entries.length === 0 ? {} : { score_under: Object.fromEntries(entries) }),
    };
  }

  async #ask(judge: Judge, generation: Generation, ids: number[], signal: AbortSignal): Promise<number[]> {
    if (ids.length === 0) return [];
    const { pinned } = judge;
    const model = pinned === null ? null : `${pinned.name}@${pinned.digest}`;
    const scoring: Generation = {
      ...generation,
      prompt: [...generation.prompt, ...ids],
      maxTokens: 0,
      logprobs: -1,
      promptLogprobs: 0,
      promptLogprobsFrom: generation.prompt.length,
      loraScale: 1,
    };
    const asked = { model, expect: null, policy: 'pin' as const, generations: [scoring] };
    const { sequences } = await takeInAll(this.#serving, asked, signal);
    for await (const event of sequences[0] ?? []) {
      if (event.type === 'prompt') return event.logprobs.map(({ logprob }) => clamp(logprob));
      if (event.type === 'failed') throw engineFailure(event.code, judge.name, null);
    }
    throw new OpenAiError('internal', 'The engine ended without log-probabilities.');
  }
}
