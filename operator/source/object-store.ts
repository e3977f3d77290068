import type { S3Client } from '@aws-sdk/client-s3';
import { revisionDigest } from '../../server/contract/digest.ts';
import { expected } from '../../server/contract/errors.ts';
import {
  type AdapterConfig,
  CONFIG_BYTES_MAX,
  parseAdapterConfig,
} from '../../server/contract/format/adapter-config.ts';
import { headerLength, requireExactLength } from '../../server/contract/format/safetensors.ts';
import type { Spool } from '../spool/spool.ts';
import { SpoolError } from '../spool/spool-error.ts';
import { checkHeader, requireExpectedSha256 } from '../spool/verify.ts';
import { type Location, locationOf } from './location.ts';
import { head, OBJECTS, PinnedObject } from './pinned-object.ts';
import type { RangeLimits } from './ranges.ts';
import { abortReason, openS3, type S3Options } from './s3.ts';
import {
  type Fetched,
  type FetchLimits,
  type Resolved,
  Retryable,
  type Source,
  type SourcedAdapter,
} from './types.ts';

export interface ObjectStoreOptions extends S3Options {
  limitsOf(adapter: SourcedAdapter): FetchLimits;
  ranges: RangeLimits;
}

/** Of the tensors, before any of the rest is asked for; more if the header is longer. */
const FIRST_BYTES = 64 * 1024;
const FETCH_MS_MIN = 300_000;
const FETCH_MS_MAX = 86_400_000;
const BYTES_PER_MS_MIN = 256;

/** s3://: two objects under a prefix, read by ranges that are pinned to the ETags which `resolve` saw. */
export class ObjectStoreSource implements Source {
  readonly #options: ObjectStoreOptions;

  constructor(options: ObjectStoreOptions) {
    this.#options = options;
  }

  /** The version is `etag of the tensors,etag of the config[,version id of the tensors]`. */
  async resolve(adapter: SourcedAdapter, signal: AbortSignal): Promise<Resolved> {
    return await this.#withClient(adapter, signal, async (client, location) => {
      const life = this.#deadline(signal, this.#options.ranges.stallMs);
      const [tensors, config] = await Promise.all([
        head(client, location, 'tensors', life),
        head(client, location, 'config', life),
      ]);
      const parts = [tensors.etag, config.etag, ...(location.versionId === null ? [] : [location.versionId])];
      return { sourceVersion: parts.join(',') };
    });
  }

  async fetch(
    adapter: SourcedAdapter,
    resolved: Resolved,
    spool: Spool,
    signal: AbortSignal,
  ): Promise<Fetched> {
    const limits = this.#options.limitsOf(adapter);
    const fetchMs = Math.min(FETCH_MS_MIN + Math.ceil(limits.maxBytes / BYTES_PER_MS_MIN), FETCH_MS_MAX);
    const life = this.#deadline(signal, fetchMs);
    return await this.#withClient(adapter, life, async (client, location) => {
      try {
        const objects = await this.#pin(client, location, resolved, life);
        const config = await readConfig(objects.config, life);
        const first = await readFirst(objects.tensors, limits.maxBytes, life);
        const { header, shape } = checkHeader(first.header, () => config, limits.fit, adapter.spec.verify);
        requireExactLength(header, objects.tensors.size);
        const received = await receive(objects.tensors, { first: first.bytes, config, adapter, spool }, life);
        return { ...received, config: config.raw, sourceVersion: resolved.sourceVersion, shape };
      } catch (error) {
        throw life.aborted ? abortReason(life) : error;
      }
    });
  }

  async #pin(
    client: S3Client,
    location: Location,
    { sourceVersion }: Resolved,
    signal: AbortSignal,
  ): Promise<{ tensors: PinnedObject; config: PinnedObject }> {
    const [tensorsEtag = '', configEtag = ''] = sourceVersion.split(',');
    const life = this.#deadline(signal, this.#options.ranges.stallMs);
    const pin = async (which: keyof typeof OBJECTS, etag: string) => {
      const { size } = await head(client, location, which, life, etag);
      return new PinnedObject(client, { location, which, etag, size }, this.#options.ranges);
    };
    const [tensors, config] = await Promise.all([pin('tensors', tensorsEtag), pin('config', configEtag)]);
    return { tensors, config };
  }

  #deadline(signal: AbortSignal, ms: number): AbortSignal {
    return AbortSignal.any([signal, AbortSignal.timeout(ms)]);
  }

  async #withClient<T>(
    adapter: SourcedAdapter,
    signal: AbortSignal,
    use: (client: S3Client, location: Location) => Promise<T>,
  ): Promise<T> {
    const location = locationOf(adapter);
    const client = await openS3(location, this.#options, signal);
    try {
      return await use(client, location);
    } finally {
      client.destroy();
    }
  }
}

async function readConfig(object: PinnedObject, signal: AbortSignal): Promise<AdapterConfig> {
  requireSize(object.size, CONFIG_BYTES_MAX, OBJECTS.config);
  return parseAdapterConfig(await object.buffer(0, object.size, signal));
}

/** The header, and the bytes from the start that had to be read for it. */
async function readFirst(
  object: PinnedObject,
  maxBytes: number,
  signal: AbortSignal,
): Promise<{ header: Uint8Array; bytes: Uint8Array }> {
  requireSize(object.size, maxBytes, OBJECTS.tensors);
  const start = await object.buffer(0, Math.min(FIRST_BYTES, object.size), signal);
  const headerEnd = Math.min(headerLength(start), object.size);
  const missing = headerEnd > start.length ? await object.buffer(start.length, headerEnd, signal) : null;
  const bytes = missing === null ? start : Buffer.concat([start, missing]);
  return { header: bytes.subarray(0, headerEnd), bytes };
}

interface Receiving {
  first: Uint8Array;
  config: AdapterConfig;
  adapter: SourcedAdapter;
  spool: Spool;
}

async function receive(
  object: PinnedObject,
  { first, config, adapter, spool }: Receiving,
  signal: AbortSignal,
): Promise<{ digest: string; bytes: number }> {
  const writer = spool.begin();
  try {
    await writer.write(first);
    for await (const bytes of object.bytes(first.length, object.size, signal)) await writer.write(bytes);
    const tensorsSha256 = writer.tensorsSha256();
    requireExpectedSha256(tensorsSha256, adapter.spec.verify);
    const digest = revisionDigest(config.raw, tensorsSha256);
    await writer.commit(digest, { config: config.raw });
    return { digest, bytes: object.size };
  } catch (error) {
    await writer.abort();
    if (error instanceof SpoolError && error.code === 'full') {
      throw new Retryable('InternalError', `${error.message}.`, error);
    }
    throw error;
  }
}

function requireSize(size: number, maxBytes: number, what: string): void {
  if (size <= maxBytes) return;
  throw expected('body_too_large', what, `at most ${maxBytes} bytes`, size);
}
