import { createHash, type Hash } from 'node:crypto';
import { revisionDigest } from '../contract/digest.ts';
import { expected } from '../contract/errors.ts';
import {
  type AdapterConfig,
  configFromHeaders,
  parseAdapterConfig,
} from '../contract/format/adapter-config.ts';
import { type BindLimits, type BoundAdapter, bindAdapter } from '../contract/format/bind.ts';
import {
  headerLength,
  parseHeader,
  requireExactLength,
  type SafetensorsHeader,
  wrongLength,
} from '../contract/format/safetensors.ts';
import { requireBodySize } from '../transfer/limits.ts';
import type { HostTier, Incoming, Reservation } from './host-tier.ts';

export interface ReceiveOptions {
  tier: HostTier;
  limits: BindLimits & { maxAdapterBytes: number };
  /** Value of `x-lora-config`. */
  configHeader: string | undefined;
  /** Null where the body comes in chunks of unknown number. */
  contentLength: number | null;
}

/** A whole adapter that fits the base model, in memory that the host tier has reserved. */
export interface Received {
  incoming: Incoming;
  /** Lower-case hex. */
  tensorsSha256: string;
  reservation: Reservation;
  receiveMs: number;
  /** Time for header, config and binding alone. */
  checkMs: number;
}

type Part = 'prefix' | 'header' | 'data';

interface Checked {
  config: AdapterConfig;
  header: SafetensorsHeader;
  bound: BoundAdapter;
  reservation: Reservation;
}

/**
 * Takes an adapter in as its bytes arrive. Everything that the safetensors header can tell is checked as soon as the
 * header is whole, and only then is room for the data reserved, in one piece.
 *
 *   prefix (8 bytes) ─▶ header (≤ 1 MiB) ─▶ data (one buffer for the whole file) ─▶ finish
 */
export class Receiver {
  readonly #options: ReceiveOptions;
  readonly #hash: Hash = createHash('sha256');
  readonly #startedMs = performance.now();
  #part: Part = 'prefix';
  #target = Buffer.alloc(8);
  #filled = 0;
  #checked: Checked | null = null;
  #checkMs = 0;

  constructor(options: ReceiveOptions) {
    this.#options = options;
  }

  /** Throws the refusal as soon as the bytes so far deserve one; the receiver must be aborted then. */
  push(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    let rest = chunk;
    while (rest.length > 0) {
      const room = this.#target.length - this.#filled;
      if (room === 0) throw wrongLength(this.#target.length, this.#target.length + rest.length);
      const part = rest.subarray(0, room);
      this.#target.set(part, this.#filled);
      this.#filled += part.length;
      rest = rest.subarray(part.length);
      if (this.#filled === this.#target.length) this.#advance();
    }
  }

  finish(): Received {
    if (this.#part === 'prefix') headerLength(this.#target.subarray(0, this.#filled));
    if (this.#checked === null) parseHeader(this.#target.subarray(0, this.#filled));
    const { config, header, bound, reservation } = this.#checked as Checked;
    const { configHeader } = this.#options;
    requireExactLength(header, this.#filled);
    const tensorsSha256 = this.#hash.digest('hex');
    const digest = revisionDigest(config.raw, tensorsSha256);
    return {
      incoming: { digest, config, body: this.#target, bound, configInBody: configHeader === undefined },
      tensorsSha256,
      reservation,
      receiveMs: performance.now() - this.#startedMs - this.#checkMs,
      checkMs: this.#checkMs,
    };
  }

  /** Gives the reserved room back. */
  abort(): void {
    this.#checked?.reservation.release();
  }

  #advance(): void {
    if (this.#part === 'prefix') {
      this.#grow(headerLength(this.#target));
      this.#part = 'header';
    } else if (this.#part === 'header') {
      const checked = this.#check();
      this.#checked = checked;
      this.#part = 'data';
      this.#grow(checked.header.totalBytes);
    }
  }

  #grow(bytes: number): void {
    const grown = Buffer.allocUnsafe(bytes);
    grown.set(this.#target);
    this.#target = grown;
  }

  #check(): Checked {
    const startedMs = performance.now();
    const { limits, contentLength, configHeader, tier } = this.#options;
    const header = parseHeader(this.#target);
    if (contentLength !== null) requireExactLength(header, contentLength);
    requireBodySize(header.totalBytes, limits.maxAdapterBytes);
    const configBytes = configFromHeaders(configHeader, header.metadata);
    if (configBytes === null) {
      const want = 'adapter_config.json as base64url, or as text in adapter_config of __metadata__,';
      throw expected('missing_config', 'x-lora-config', want, undefined);
    }
    const config = parseAdapterConfig(configBytes);
    const bound = bindAdapter(config, header, limits);
    this.#checkMs = performance.now() - startedMs;
    return { config, header, bound, reservation: tier.reserve(header.totalBytes) };
  }
}
