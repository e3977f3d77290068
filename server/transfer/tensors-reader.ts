import { createHash } from 'node:crypto';
import {
  headerLength,
  parseHeader,
  requireExactLength,
  type SafetensorsHeader,
} from '../contract/format/safetensors.ts';
import { requireBodySize } from './limits.ts';

const PREFIX_BYTES = 8;

export interface Expectation<T> {
  maxBytes: number;
  /** Null where nobody has said how many there will be. */
  declaredBytes: number | null;
  /** Throws the refusal of a header whose sizes are right; what it returns is kept. */
  accept(header: SafetensorsHeader): T;
}

/**
 * The bytes of a safetensors file as they arrive, in pieces of any size: refused as soon as they deserve it.
 * Until the header is whole and accepted nothing is handed on, and no more memory taken than it needs. After an error
 * the reader is of no more use.
 *
 *   prefix (8 bytes) ─▶ header (≤ 1 MiB) ─▶ accept ─▶ data ─▶ finish
 */
export class TensorsReader<T> {
  /** What `accept` returned; null before. */
  accepted: T | null = null;
  receivedBytes = 0;
  /** Time for header and `accept` alone. */
  checkMs = 0;
  readonly #expectation: Expectation<T>;
  #head = Buffer.alloc(PREFIX_BYTES);
  #header: SafetensorsHeader | null = null;

  constructor(expectation: Expectation<T>) {
    this.#expectation = expectation;
  }

  /** What may be handed on: null before the header is accepted, then all bytes from the first, then each chunk. */
  push(chunk: Uint8Array): Uint8Array | null {
    const part = this.#header === null ? this.#fillHead(chunk) : chunk;
    this.receivedBytes += chunk.length;
    if (this.#header !== null && this.receivedBytes > this.#header.totalBytes) {
      requireExactLength(this.#header, this.receivedBytes);
    }
    return part;
  }

  /** What `accept` returned. Refuses a file that is not whole. */
  finish(): T {
    // Without a whole header this throws.
    const header = this.#header ?? parseHeader(this.#head.subarray(0, this.receivedBytes));
    requireExactLength(header, this.receivedBytes);
    return this.accepted as T;
  }

  #fillHead(chunk: Uint8Array): Uint8Array | null {
    let filled = this.receivedBytes;
    for (let rest = chunk; rest.length > 0; ) {
      const part = rest.subarray(0, this.#head.length - filled);
      this.#head.set(part, filled);
      filled += part.length;
      rest = rest.subarray(part.length);
      if (filled < this.#head.length) return null;
      if (filled > PREFIX_BYTES) {
        this.#check();
        return Buffer.concat([this.#head, rest]);
      }
      this.#head = Buffer.concat([this.#head], headerLength(this.#head));
    }
    return null;
  }

  #check(): void {
    const startedMs = performance.now();
    const { maxBytes, declaredBytes, accept } = this.#expectation;
    const header = parseHeader(this.#head);
    if (declaredBytes !== null) requireExactLength(header, declaredBytes);
    requireBodySize(header.totalBytes, maxBytes);
    this.accepted = accept(header);
    this.#header = header;
    this.checkMs = performance.now() - startedMs;
  }
}

/** The same, hashed as they arrive. */
export class HashingReader<T> {
  readonly #reader: TensorsReader<T>;
  readonly #hash = createHash('sha256');

  constructor(expectation: Expectation<T>) {
    this.#reader = new TensorsReader(expectation);
  }

  get accepted(): T | null {
    return this.#reader.accepted;
  }

  push(chunk: Uint8Array): Uint8Array | null {
    const part = this.#reader.push(chunk);
    this.#hash.update(chunk);
    return part;
  }

  /** The hash is lower-case hex. */
  finish(): { accepted: T; tensorsSha256: string } {
    return { accepted: this.#reader.finish(), tensorsSha256: this.#hash.digest('hex') };
  }
}
