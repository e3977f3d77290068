import { GREEDY, type TestEngine } from '../native/support.ts';

/** What a revision says after some tokens, alone and without a cache of prefixes: asked once, and remembered. */
export class Oracle {
  readonly #alone: TestEngine;
  readonly #known = new Map<string, Promise<number[]>>();

  constructor(alone: TestEngine) {
    this.#alone = alone;
  }

  get asked(): number {
    return this.#known.size;
  }

  /** The greedy tokens after these; `revision` null: the base. */
  async says(
    after: number[],
    { revision, scale, count }: { revision: string | null; scale: number; count: number },
  ): Promise<number[]> {
    const key = `${revision}/${scale}/${after.join()}`;
    const known = await this.#known.get(key);
    if (known !== undefined && known.length >= count) return known.slice(0, count);
    const target = revision === null ? GREEDY.target : ({ kind: 'revision', digest: revision } as const);
    const request = { prompt: after, target, loraScale: scale, maxTokens: count, stopTokens: [] };
    const asked = this.#alone.generate(request).then(({ tokens }) => tokens);
    this.#known.set(key, asked);
    return await asked;
  }
}
