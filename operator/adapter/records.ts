import { AdapterRecord, type Pins } from './record.ts';

/** By `namespace/name`; an object that was made again under one name starts anew. */
export class Records {
  readonly #records = new Map<string, AdapterRecord>();
  #sequence = 0;

  /** One count for all adapters: an object made again under one name must not go back in what its pods have seen. */
  nextSequence(): number {
    this.#sequence += 1;
    return this.#sequence;
  }

  of(key: string, uid: string, spool: Pins): AdapterRecord {
    const known = this.#records.get(key);
    if (known?.uid === uid) return known;
    known?.release(spool);
    const record = new AdapterRecord(key, uid, () => this.nextSequence());
    this.#records.set(key, record);
    return record;
  }

  get(key: string): AdapterRecord | undefined {
    return this.#records.get(key);
  }

  /** The object is gone: nothing of it stays in this process. */
  forget(key: string, spool: Pins): void {
    this.#records.get(key)?.release(spool);
    this.#records.delete(key);
  }
}
