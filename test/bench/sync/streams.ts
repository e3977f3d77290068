import { promptTokens } from '../engine/cases.ts';
import type { Trace } from '../engine/trace.ts';
import { streamCompletion } from '../stream-completion.ts';

const PROMPT_TOKENS = 16;

interface StreamsOptions {
  /** By turns. */
  models: string[];
  count: number;
  maxTokens: number;
  vocab: number;
}

/** Streams that decode until they are stopped, each with one request after the other. */
export class Streams {
  /** Settles once each has a token. */
  readonly started: Promise<unknown>;
  readonly #stop = new AbortController();
  readonly #running: Promise<Trace[]>[];

  constructor(url: string, { models, count, maxTokens, vocab }: StreamsOptions) {
    const firsts = Array.from({ length: count }, () => Promise.withResolvers<void>());
    this.#running = firsts.map(async (first, index) => {
      const model = models[index % models.length] as string;
      const request = { model, prompt: promptTokens(index, PROMPT_TOKENS, vocab), max_tokens: maxTokens };
      const traces: Trace[] = [];
      while (!this.#stop.signal.aborted) {
        const watching = { signal: this.#stop.signal, onTokens: first.resolve };
        traces.push(await streamCompletion(url, request, watching));
      }
      return traces;
    });
    this.started = Promise.all(firsts.map(({ promise }) => promise));
  }

  /** The largest gap between two tokens of a request since then, and how long an engine step took. */
  async stop(sinceMs: number): Promise<{ largestMs: number; stepMs: number }> {
    this.#stop.abort();
    const gaps = (await Promise.all(this.#running)).flat().flatMap(({ timesMs }) => {
      const since = timesMs.filter((timeMs) => timeMs >= sinceMs);
      return since.slice(1).map((timeMs, index) => timeMs - (since[index] as number));
    });
    const wholeMs = gaps.reduce((sum, gapMs) => sum + gapMs, 0);
    return { largestMs: Math.max(...gaps), stepMs: wholeMs / gaps.length };
  }
}
