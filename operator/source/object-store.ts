import type { S3Client } from '@aws-sdk/client-s3';
import { revisionDigest } from '../../server/contract/digest.ts';
import { expected } from '../../server/contract/errors.ts';
import {
  type AdapterConfig,
  CONFIG_BYTES_MAX,
  parseAdapterConfig,
} from '../../server/contract/format/adapter-config.ts';
import { headerLength } from '../../server/contract/format/safetensors.ts';
import { TensorsReader } from '../../server/transfer/tensors-reader.ts';
import type { Spool } from '../spool/spool.ts';
import { SpoolError } from '../spool/spool-error.ts';
import { checkHeader, requireExpectedSha256, type Shape } from '../spool/verify.ts';
import { type Location, locationOf } from './location.ts';
import { head, OBJECTS, PinnedObject } from './pinned-object.ts';
import type { RangeLimits } from './ranges.ts';
import { abortReason, openS3, type S3Options } from './s3.ts';
import {
  type Fetched,
  type FetchOrder,
  type Resolved,
  Retryable,
  type Source,
  type SourcedAdapter,
} from './types.ts';

export interface ObjectStoreOptions extends S3Options {
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

  async fetch(adapter: SourcedAdapter, order: FetchOrder, signal: AbortSignal): Promise<Fetched> {
    const { limits, spool, sourceVersion } = order;
    const fetchMs = Math.min(FETCH_MS_MIN + Math.ceil(limits.maxBytes / BYTES_PER_MS_MIN), FETCH_MS_MAX);
    const life = this.#deadline(signal, fetchMs);
    return await this.#withClient(adapter, life, async (client, location) => {
      try {
        const objects = await this.#pin(client, location, sourceVersion, life);
        const config = await readConfig(objects.config, life);
        requireSize(objects.tensors.size, limits.maxBytes, OBJECTS.tensors);
        const reader = new TensorsReader({
          maxBytes: limits.maxBytes,
          declaredBytes: objects.tensors.size,
          accept: (header) => checkHeader(header, config, limits.fit, adapter.spec.verify),
        });
        const received = await receive(objects.tensors, { reader, config, adapter, spool }, life);
        return { ...received, config: config.raw, sourceVersion };
      } catch (error) {
        throw life.aborted ? abortReason(life) : error;
      }
    });
  }

  async #pin(
    client: S3Client,
    location: Location,
    sourceVersion: string,
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

interface Receiving {
  reader: TensorsReader<Shape | null>;
  config: AdapterConfig;
  adapter: SourcedAdapter;
  spool: Spool;
}

async function receive(
  object: PinnedObject,
  { reader, config, adapter, spool }: Receiving,
  signal: AbortSignal,
): Promise<Pick<Fetched, 'digest' | 'bytes' | 'shape'>> {
  const writer = spool.begin({ hash: false });
  try {
    for await (const chunk of chunksOf(object, signal)) {
      const bytes = reader.push(chunk);
      if (bytes !== null) await writer.write(bytes);
    }
    const { accepted: shape, tensorsSha256 } = reader.finish();
    requireExpectedSha256(tensorsSha256, adapter.spec.verify);
    const digest = revisionDigest(config.raw, tensorsSha256);
    await writer.commit(digest, { config: config.raw, tensorsSha256 });
    return { digest, bytes: object.size, shape };
  } catch (error) {
    await writer.abort();
    if (error instanceof SpoolError && error.code === 'full') {
      throw new Retryable('InternalError', `${error.message}.`, error);
    }
    throw error;
  }
}

/** All bytes; those after the header are not asked for before the reader has taken it. */
async function* chunksOf(object: PinnedObject, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const start = await object.buffer(0, Math.min(FIRST_BYTES, object.size), signal);
  yield start;
  const headerEnd = Math.max(start.length, Math.min(headerLength(start), object.size));
  if (headerEnd > start.length) yield await object.buffer(start.length, headerEnd, signal);
  yield* object.bytes(headerEnd, object.size, signal);
}

function requireSize(size: number, maxBytes: number, what: string): void {
  if (size <= maxBytes) return;
  throw expected('body_too_large', what, `at most ${maxBytes} bytes`, size);
}
