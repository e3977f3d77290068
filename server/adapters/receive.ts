import { HEADER } from '../contract/adapter-api.ts';
import { canonicalJson, revisionDigest } from '../contract/digest.ts';
import { expected } from '../contract/errors.ts';
import { configFromHeaders, parseAdapterConfig } from '../contract/format/adapter-config.ts';
import { type BindLimits, type BoundAdapter, bindAdapter } from '../contract/format/bind.ts';
import type { SafetensorsHeader } from '../contract/format/safetensors.ts';
import type { RunningHash } from '../transfer/hash-thread.ts';
import { TensorsReader } from '../transfer/tensors-reader.ts';
import { hostBytesOf } from './host-bytes.ts';
import type { HostTier, Incoming, Reservation } from './host-tier.ts';

export interface ReceiveOptions {
  tier: HostTier;
  /** Memory of that many bytes, with anything in it. */
  allocate: (bytes: number) => Buffer;
  hash: RunningHash;
  limits: BindLimits & { maxAdapterBytes: number };
  /** Value of `x-lora-config`. */
  configHeader: string | undefined;
  /** Null where the body comes in chunks of unknown number. */
  contentLength: number | null;
}

/** A whole adapter that fits the base model, in memory that the host tier has reserved. */
export interface ReceivedAdapter {
  incoming: Incoming;
  /** Lower-case hex. */
  tensorsSha256: string;
  reservation: Reservation;
  receiveMs: number;
  /** Time for header, config and binding alone. */
  checkMs: number;
}

interface Checked extends Pick<Incoming, 'config' | 'bound' | 'hostBytes'> {
  /** What `config` says. */
  raw: unknown;
  reservation: Reservation;
  bodyBytes: number;
}

/**
 * Takes an adapter in as its bytes arrive. Everything that the safetensors header can tell is checked as soon as the
 * header is whole, and only then is room for the data reserved, in one piece.
 */
export class Receiver {
  readonly #options: ReceiveOptions;
  readonly #reader: TensorsReader<Checked>;
  readonly #startedMs = performance.now();
  #body: Buffer | null = null;
  #filled = 0;

  constructor(options: ReceiveOptions) {
    this.#options = options;
    this.#reader = new TensorsReader({
      maxBytes: options.limits.maxAdapterBytes,
      declaredBytes: options.contentLength,
      accept: (header) => this.#check(header),
    });
  }

  /** Throws the refusal as soon as the bytes so far deserve one; the receiver must be aborted then. */
  push(chunk: Uint8Array): void {
    const part = this.#reader.push(chunk);
    if (part !== null) this.#keep(part);
    this.#options.hash.take(chunk);
  }

  /** The body so far, which stays as it is: null before its header is accepted. */
  get body(): { bytes: Buffer; filled: number } | null {
    return this.#body === null ? null : { bytes: this.#body, filled: this.#filled };
  }

  async finish(): Promise<ReceivedAdapter> {
    const { raw, config, bound, hostBytes, reservation } = this.#reader.finish();
    const body = this.#body as Buffer;
    const tensorsSha256 = await this.#options.hash.digest();
    const { checkMs } = this.#reader;
    const digest = revisionDigest(raw, tensorsSha256);
    const configInBody = this.#options.configHeader === undefined;
    return {
      incoming: { digest, config, body, bound, configInBody, hostBytes },
      tensorsSha256,
      reservation,
      receiveMs: performance.now() - this.#startedMs - checkMs,
      checkMs,
    };
  }

  /** Gives the reserved room back. */
  abort(): void {
    this.#options.hash.abandon();
    this.#reader.accepted?.reservation.release();
  }

  #keep(part: Uint8Array): void {
    this.#body ??= this.#options.allocate(this.#reader.accepted?.bodyBytes ?? 0);
    this.#body.set(part, this.#filled);
    this.#filled += part.length;
  }

  #check(header: SafetensorsHeader): Checked {
    const { limits, configHeader, tier } = this.#options;
    const configBytes = configFromHeaders(configHeader, header.metadata);
    if (configBytes === null) {
      const want = 'adapter_config.json as base64url, or as text in adapter_config of __metadata__,';
      throw expected('missing_config', HEADER.config, want, undefined);
    }
    const parsed = parseAdapterConfig(configBytes);
    const bound = withoutRemains(bindAdapter(parsed, header, limits));
    const config = bufferOf(canonicalJson(parsed.raw));
    const bodyBytes = header.totalBytes;
    const hostBytes = hostBytesOf({ bodyBytes, configBytes: config.length, bound });
    return { raw: parsed.raw, config, bound, hostBytes, reservation: tier.reserve(hostBytes), bodyBytes };
  }
}

/** A copy whose texts are no slices of the header's, which would stay in memory whole, and whose lists have no spare room. */
function withoutRemains(bound: BoundAdapter): BoundAdapter {
  return JSON.parse(JSON.stringify(bound)) as BoundAdapter;
}

/** In memory of its own: a part of Node's pool would keep the rest of the pool. */
function bufferOf(text: string): Buffer {
  const buffer = Buffer.allocUnsafeSlow(Buffer.byteLength(text));
  buffer.write(text);
  return buffer;
}
