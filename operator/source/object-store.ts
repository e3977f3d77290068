import { createHash } from 'node:crypto';
import { revisionDigest } from '../../server/contract/digest.ts';
import { expected } from '../../server/contract/errors.ts';
import {
  type AdapterConfig,
  CONFIG_BYTES_MAX,
  parseAdapterConfig,
} from '../../server/contract/format/adapter-config.ts';
import { headerLength } from '../../server/contract/format/safetensors.ts';
import { HashingReader } from '../../server/transfer/tensors-reader.ts';
import { type Clock, deadline } from '../kube/clock.ts';
import type { Spool } from '../spool/spool.ts';
import { SpoolError } from '../spool/spool-error.ts';
import { checkHeader, requireExpectedSha256, requireSha256, type Shape } from '../spool/verify.ts';
import { noAnswer } from './no-answer.ts';
import { PinnedObject } from './pinned-object.ts';
import { OBJECTS, type ObjectStore, type OpenStore, type StoredObject } from './port.ts';
import type { RangeLimits } from './ranges.ts';
import {
  type Fetched,
  type FetchOrder,
  Retryable,
  type Source,
  type SourcedAdapter,
  type SourceState,
} from './types.ts';

export interface ObjectStoreOptions {
  open: OpenStore;
  limits: RangeLimits;
  clock: Clock;
}

/** Of the tensors, before any of the rest is asked for; more if the header is longer. */
const FIRST_BYTES = 64 * 1024;
const FETCH_MS_MIN = 300_000;
const FETCH_MS_MAX = 86_400_000;
const BYTES_PER_MS_MIN = 256;

/** The two objects of an adapter, read by ranges that are pinned to the versions which `resolve` saw. */
export class ObjectStoreSource implements Source {
  readonly #options: ObjectStoreOptions;

  constructor(options: ObjectStoreOptions) {
    this.#options = options;
  }

  /** The version is `that of the tensors,that of the config[,spec.source.objectStore.versionId]`. */
  async resolve(adapter: SourcedAdapter, signal: AbortSignal): Promise<SourceState> {
    return await this.#withStore(adapter, signal, async (store) => {
      const [tensors, config] = await this.#heads(store, signal);
      const versionId = adapter.spec.source.objectStore?.versionId;
      const parts = [tensors.version, config.version, ...(versionId ? [versionId] : [])];
      return { sourceVersion: parts.join(',') };
    });
  }

  async fetch(adapter: SourcedAdapter, order: FetchOrder, signal: AbortSignal): Promise<Fetched> {
    const { maxBytes } = order.limits;
    const fetchMs = Math.min(FETCH_MS_MIN + Math.ceil(maxBytes / BYTES_PER_MS_MIN), FETCH_MS_MAX);
    return await this.#within(fetchMs, signal, (life) =>
      this.#withStore(adapter, life, (store) => this.#take(store, adapter, order, life)),
    );
  }

  async #take(
    store: ObjectStore,
    adapter: SourcedAdapter,
    { limits, spool, sourceVersion }: FetchOrder,
    signal: AbortSignal,
  ): Promise<Fetched> {
    const objects = await this.#heads(store, signal);
    const versions = sourceVersion.split(',');
    const changed = objects.find(({ version }, index) => version !== versions[index]);
    if (changed) throw new Retryable('SourceChanged', `${changed.key} was overwritten while it was read.`);
    const tensors = new PinnedObject(store, objects[0], this.#options);
    const config = await readConfig(new PinnedObject(store, objects[1], this.#options), objects[1], signal);
    requireSize(tensors.size, limits.maxBytes, OBJECTS.tensors);
    const reader = new HashingReader({
      maxBytes: limits.maxBytes,
      declaredBytes: tensors.size,
      accept: (header) => checkHeader(header, config, limits.fit, adapter.spec.verify),
    });
    const { wanted } = objects[0];
    const received = await receive(tensors, { reader, config, adapter, spool, wanted }, signal);
    return { ...received, config: config.raw, sourceVersion };
  }

  async #heads(store: ObjectStore, signal: AbortSignal): Promise<[StoredObject, StoredObject]> {
    return await this.#within(this.#options.limits.stallMs, signal, async (life) => {
      const config = store.head(OBJECTS.config, life);
      const tensors = store.head(OBJECTS.tensors, life);
      // Where both fail it is always the same one that is told: a message that changes with each try is a write of status.
      await Promise.allSettled([config, tensors]);
      const second = await config;
      return [await tensors, second];
    });
  }

  async #within<T>(ms: number, signal: AbortSignal, use: (life: AbortSignal) => Promise<T>): Promise<T> {
    const life = deadline(this.#options.clock, ms, signal, () => noAnswer('timeout'));
    try {
      return await use(life.signal);
    } catch (error) {
      throw life.signal.aborted ? life.signal.reason : error;
    } finally {
      life.clear();
    }
  }

  async #withStore<T>(
    adapter: SourcedAdapter,
    signal: AbortSignal,
    use: (store: ObjectStore) => Promise<T>,
  ): Promise<T> {
    const store = await this.#options.open(adapter, signal);
    try {
      return await use(store);
    } finally {
      store.close();
    }
  }
}

async function readConfig(
  object: PinnedObject,
  { wanted }: StoredObject,
  signal: AbortSignal,
): Promise<AdapterConfig> {
  requireSize(object.size, CONFIG_BYTES_MAX, OBJECTS.config);
  const bytes = await object.buffer({ begin: 0, end: object.size }, signal);
  requireWanted(wanted, createHash('sha256').update(bytes).digest('hex'));
  return parseAdapterConfig(bytes);
}

interface Receiving {
  reader: HashingReader<Shape | null>;
  config: AdapterConfig;
  adapter: SourcedAdapter;
  spool: Spool;
  wanted: StoredObject['wanted'];
}

async function receive(
  object: PinnedObject,
  { reader, config, adapter, spool, wanted }: Receiving,
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
    requireWanted(wanted, tensorsSha256);
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
  if (object.isWhole) return yield* object.bytes({ begin: 0, end: object.size }, signal);
  const start = await object.buffer({ begin: 0, end: Math.min(FIRST_BYTES, object.size) }, signal);
  yield start;
  const headerEnd = Math.max(start.length, Math.min(headerLength(start), object.size));
  if (headerEnd > start.length) yield await object.buffer({ begin: start.length, end: headerEnd }, signal);
  yield* object.bytes({ begin: headerEnd, end: object.size }, signal);
}

function requireWanted(wanted: StoredObject['wanted'], sha256: string): void {
  if (wanted !== undefined) requireSha256(wanted.field, wanted.sha256, sha256);
}

function requireSize(size: number, maxBytes: number, what: string): void {
  if (size <= maxBytes) return;
  throw expected('body_too_large', what, `at most ${maxBytes} bytes`, size);
}
