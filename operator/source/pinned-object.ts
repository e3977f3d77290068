import type { ObjectStore, Span, StoredObject } from './port.ts';
import { type RangeReading, readRanges, readWhole } from './ranges.ts';

/** Where the store has another version by now, every read fails with SourceChanged. */
export class PinnedObject {
  readonly size: number;
  /** Only the span of all bytes can be read. */
  readonly isWhole: boolean;
  readonly #reading: RangeReading;

  constructor(store: ObjectStore, object: StoredObject, how: Pick<RangeReading, 'limits' | 'clock'>) {
    this.size = object.size;
    this.isWhole = object.isWhole ?? false;
    this.#reading = { ...how, open: (span, signal) => store.open(object, span, signal) };
  }

  bytes(span: Span, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    return (this.isWhole ? readWhole : readRanges)(this.#reading, span, signal);
  }

  async buffer(span: Span, signal: AbortSignal): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for await (const part of this.bytes(span, signal)) parts.push(part);
    return Buffer.concat(parts);
  }
}
