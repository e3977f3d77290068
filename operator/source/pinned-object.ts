import type { ObjectStore, Span, StoredObject } from './port.ts';
import { type RangeLimits, readRanges } from './ranges.ts';

/** Where the store has another version by now, every read fails with SourceChanged. */
export class PinnedObject {
  readonly #store: ObjectStore;
  readonly #object: StoredObject;
  readonly #limits: RangeLimits;

  constructor(store: ObjectStore, object: StoredObject, limits: RangeLimits) {
    this.#store = store;
    this.#object = object;
    this.#limits = limits;
  }

  get size(): number {
    return this.#object.size;
  }

  bytes(span: Span, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const open = (part: Span, life: AbortSignal) => this.#store.open(this.#object, part, life);
    return readRanges(open, span, this.#limits, signal);
  }

  async buffer(span: Span, signal: AbortSignal): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for await (const part of this.bytes(span, signal)) parts.push(part);
    return Buffer.concat(parts);
  }
}
