/** The tokens of one choice from `from` on, up to the next span, and the revision that made them. */
export interface Span {
  from: number;
  revision: string;
  step: number | null;
}

/** Of one choice, in order. A choice moves on between two tokens, so a span may come to nothing. */
export class Spans {
  readonly #list: Span[];

  constructor(first: Span) {
    this.#list = [first];
  }

  add(span: Span): void {
    if (this.#list.at(-1)?.from === span.from) this.#list.pop();
    this.#list.push(span);
  }

  toJSON(): Span[] {
    return this.#list;
  }

  /** As SGLang says it, `end` being the number of tokens for the last one. */
  weightVersions(tokens: number): { version: string; start: number; end: number }[] {
    return this.#list.map(({ from, revision }, index) => ({
      version: revision,
      start: from,
      end: this.#list[index + 1]?.from ?? tokens,
    }));
  }
}
