import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Failure, failureOf } from '../../../operator/adapter/failures.ts';
import { ApiError } from '../../../operator/kube/api-error.ts';
import { systemClock } from '../../../operator/kube/clock.ts';
import { SecretForbidden } from '../../../operator/kube/secrets.ts';
import { AddressGuard } from '../../../operator/source/address-guard.ts';
import { openSources, type SourceOptions } from '../../../operator/source/index.ts';
import { type FetchLimits, type SourcedAdapter, SourceError } from '../../../operator/source/types.ts';
import { Spool } from '../../../operator/spool/spool.ts';
import { revisionDigest } from '../../../server/contract/digest.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { type ObjectStore, startObjectStore } from '../../cluster/object-store.ts';
import { f32, factorName, goodAdapter, packSafetensors, type Tensors } from '../../support/adapter-files.ts';
import { PARROT_GEOMETRY } from '../../support/parrot-geometry.ts';
import { FaultProxy } from './fault-proxy.ts';

const CANARY = 'canary-secret-5b1f';

let store: ObjectStore;
let proxy: FaultProxy;
let endpoint: string;
let dir: string;
let spool: Spool;
let prefix = 0;

beforeAll(async () => {
  store = await startObjectStore();
}, 30_000);
afterAll(() => store?.stop());

beforeEach(async () => {
  proxy = new FaultProxy(store.endpoint);
  endpoint = await proxy.listen();
  dir = await mkdtemp(join(tmpdir(), 'lorikeet-source-'));
  spool = new Spool({ dir, maxBytes: 64 * 2 ** 20 });
});
afterEach(async () => {
  await proxy.close();
  await rm(dir, { recursive: true, force: true });
});

const signal = AbortSignal.timeout(60_000);
const LIMITS: FetchLimits = { maxBytes: 8 * 2 ** 20, fit: { geometry: PARROT_GEOMETRY, maxRank: 64 } };
const RANGES = { rangeBytes: 16 * 1024, concurrency: 4, stallMs: 300, resumes: 3, resumeDelayMs: 5 };

function source(options: Partial<SourceOptions> = {}) {
  return openSources({
    readSecret: async (namespace, name) =>
      namespace === 'team-a' && name === 'bucket-key'
        ? { accessKeyId: store.accessKeyId, secretAccessKey: store.secretAccessKey }
        : null,
    guard: new AddressGuard({ allowed: ['127.0.0.0/8'], apiServer: null }),
    clock: systemClock,
    ranges: RANGES,
    ...options,
  }).objectStore;
}

async function put(files: { tensors: Buffer; config: Buffer }, path = `p${prefix++}`): Promise<string> {
  await store.put('adapters', `${path}/adapter_config.json`, files.config);
  await store.put('adapters', `${path}/adapter_model.safetensors`, files.tensors);
  return path;
}

function adapter(
  path: string,
  objectStore: object = {},
  verify?: SourcedAdapter['spec']['verify'],
): SourcedAdapter {
  const spec = {
    uri: `s3://adapters/${path}/`,
    endpoint,
    credentialsSecretRef: { name: 'bucket-key' },
    ...objectStore,
  };
  return {
    metadata: { namespace: 'team-a', name: 'sql' },
    spec: { source: { objectStore: spec }, ...(verify ? { verify } : {}) },
  };
}

async function fetched(wanted: SourcedAdapter, from = source(), limits = LIMITS) {
  return await from.fetch(wanted, { ...(await from.resolve(wanted, signal)), limits, spool }, signal);
}

/** What went wrong, with what the condition says of it. */
async function failure(
  promise: Promise<unknown>,
): Promise<Error & { reason: Failure['reason']; retryable: boolean }> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error instanceof SourceError || error instanceof LorikeetError).toBe(true);
  const { reason, terminal } = failureOf(error);
  return Object.assign(error as Error, { reason, retryable: !terminal });
}

async function spooled(digest: string): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of spool.open(digest)?.stream() ?? []) parts.push(part);
  return Buffer.concat(parts);
}

const sha256 = async (bytes: Uint8Array) =>
  Buffer.from(await crypto.subtle.digest('SHA-256', new Uint8Array(bytes))).toString('hex');

describe('an adapter in an object store', () => {
  it('arrives whole, under its digest', async () => {
    const files = goodAdapter();
    const { digest, bytes, config, shape } = await fetched(adapter(await put(files)));
    const expected = revisionDigest(JSON.parse(files.config.toString()), await sha256(files.tensors));
    expect({ digest, bytes, shape }).toEqual({
      digest: expected,
      bytes: files.tensors.length,
      shape: { rank: 8, targetModules: ['q_proj', 'v_proj'] },
    });
    expect(spool.open(digest)?.config).toEqual(config);
    expect(await spooled(digest)).toEqual(files.tensors);
  });

  it('is found without a slash at the end of the prefix, at the root of a bucket, and by the other key names', async () => {
    const files = goodAdapter();
    const path = await put(files);
    await store.put('root-bucket', 'adapter_config.json', files.config);
    await store.put('root-bucket', 'adapter_model.safetensors', files.tensors);
    const other = source({
      readSecret: async () => ({
        AWS_ACCESS_KEY_ID: `${store.accessKeyId}\n`,
        AWS_SECRET_ACCESS_KEY: store.secretAccessKey,
      }),
    });
    const a = await fetched(adapter(path, { uri: `s3://adapters/${path}` }), other);
    const b = await fetched(adapter(path, { uri: 's3://root-bucket' }), other);
    expect(a.digest).toBe(b.digest);
  });

  it('has a version that changes with either object', async () => {
    const path = await put(goodAdapter(1));
    const versions = [(await source().resolve(adapter(path), signal)).sourceVersion];
    await store.put('adapters', `${path}/adapter_model.safetensors`, goodAdapter(2).tensors);
    versions.push((await source().resolve(adapter(path), signal)).sourceVersion);
    await store.put('adapters', `${path}/adapter_config.json`, goodAdapter(1, { lora_alpha: 32 }).config);
    versions.push((await source().resolve(adapter(path), signal)).sourceVersion);
    expect(new Set(versions).size).toBe(3);
    expect((await source().resolve(adapter(path), signal)).sourceVersion).toBe(versions[2]);
  });

  it('is read in an older version where the spec names one', async () => {
    const old = goodAdapter(1);
    const path = await put(old);
    const versionId = await store.put('adapters', `${path}/adapter_model.safetensors`, old.tensors);
    await store.put('adapters', `${path}/adapter_model.safetensors`, goodAdapter(2).tensors);
    const { digest, sourceVersion } = await fetched(adapter(path, { versionId }));
    expect(digest).toBe(revisionDigest(JSON.parse(old.config.toString()), await sha256(old.tensors)));
    expect(sourceVersion.endsWith(`,${versionId}`)).toBe(true);
  });

  it('with a header longer than the first read arrives whole too', async () => {
    const files = longHeader();
    const { bytes } = await fetched(adapter(await put(files)));
    expect(bytes).toBe(files.tensors.length);
  });
});

/** A header of more than 64 KiB: padded metadata. */
function longHeader() {
  const files = goodAdapter();
  const headerBytes = Number(files.tensors.readBigUInt64LE(0));
  const header = JSON.parse(files.tensors.subarray(8, 8 + headerBytes).toString());
  const padded = Buffer.from(JSON.stringify({ __metadata__: { pad: 'x'.repeat(100_000) }, ...header }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return {
    config: files.config,
    tensors: Buffer.concat([length, padded, files.tensors.subarray(8 + headerBytes)]),
  };
}

describe('an object overwritten while it is read', () => {
  it.each([
    ['between resolve and the first byte', 1],
    ['between two ranges', 6],
  ])('%s fails with SourceChanged and leaves nothing', async (_, requestsBefore) => {
    const path = await put(goodAdapter(1));
    const from = source();
    const order = { ...(await from.resolve(adapter(path), signal)), limits: LIMITS, spool };
    proxy.seen.length = 0;
    let done = false;
    proxy.fault = async (_request, count) => {
      if (count >= requestsBefore && !done) {
        done = true;
        await store.put('adapters', `${path}/adapter_model.safetensors`, goodAdapter(2).tensors);
      }
      return null;
    };
    const error = await failure(from.fetch(adapter(path), order, signal));
    expect([error.reason, error.retryable]).toEqual(['SourceChanged', true]);
    expect([spool.list(), spool.usedBytes]).toEqual([[], 0]);
  });
});

describe('a store that stalls or breaks off', () => {
  it.each(['stall', 'cut'] as const)('is taken up where it stopped: %s', async (kind) => {
    const files = goodAdapter();
    const path = await put(files);
    let faults = 0;
    proxy.fault = (request) => {
      if (request.range !== 'bytes=65536-81919' || faults === 1) return null;
      faults += 1;
      return { kind, afterBytes: 5000 };
    };
    const { digest } = await fetched(adapter(path));
    expect(await spooled(digest)).toEqual(files.tensors);
    expect(proxy.seen.map(({ range }) => range).filter((range) => range?.endsWith('-81919'))).toEqual([
      'bytes=65536-81919',
      'bytes=70536-81919',
    ]);
  });

  it('for ever fails after three resumes, in bounded time, and leaves nothing', async () => {
    const path = await put(goodAdapter());
    proxy.fault = ({ range }) => (range?.endsWith('-81919') ? { kind: 'stall', afterBytes: 0 } : null);
    const startedAt = performance.now();
    const error = await failure(fetched(adapter(path)));
    expect([error.reason, error.retryable]).toEqual(['SourceUnreachable', true]);
    expect(performance.now() - startedAt).toBeLessThan(4 * 300 + 1500);
    expect(proxy.seen.filter(({ range }) => range?.endsWith('-81919'))).toHaveLength(4);
    expect([spool.list(), spool.usedBytes]).toEqual([[], 0]);
  });

  it('lets go at once when the caller gives up', async () => {
    const path = await put(goodAdapter());
    const giveUp = new AbortController();
    proxy.fault = ({ range }) => {
      if (!range?.endsWith('-81919')) return null;
      setTimeout(() => giveUp.abort(new Error('enough')), 20);
      return { kind: 'stall', afterBytes: 0 };
    };
    const from = source({ ranges: { ...RANGES, stallMs: 60_000 } });
    const order = { ...(await from.resolve(adapter(path), signal)), limits: LIMITS, spool };
    await expect(from.fetch(adapter(path), order, giveUp.signal)).rejects.toThrow('enough');
    expect(spool.usedBytes).toBe(0);
  });
});

describe('a source that cannot be read', () => {
  it.each([
    [
      'object',
      's3://adapters/nowhere/',
      /^There is no s3:\/\/adapters\/nowhere\/adapter_(model|config)\..*\.$/,
    ],
    ['bucket', 's3://no-such-bucket/sql/', /^There is no bucket no-such-bucket\.$/],
  ])('says SourceNotFound for a missing %s, with its name', async (_, uri, message) => {
    await put(goodAdapter());
    const error = await failure(fetched(adapter('any', { uri })));
    expect([error.reason, error.retryable]).toEqual(['SourceNotFound', true]);
    expect(error.message).toMatch(message);
  });

  it('says SourceInvalid for a scheme that nobody reads', async () => {
    const error = await failure(fetched(adapter('any', { uri: 'ftp://adapters/any/' })));
    expect([error.reason, error.retryable]).toEqual(['SourceInvalid', false]);
    expect(error.message).toBe('Expected a uri that begins with s3://.');
    expect(proxy.seen).toEqual([]);
  });

  it('says SourceAccessDenied for a wrong key, and does not repeat it', async () => {
    const path = await put(goodAdapter());
    const from = source({
      readSecret: async () => ({ accessKeyId: store.accessKeyId, secretAccessKey: CANARY }),
    });
    const error = await failure(fetched(adapter(path), from));
    expect([error.reason, error.retryable]).toEqual(['SourceAccessDenied', true]);
    expect(error.message).toMatch(
      /^The object store denies access to s3:\/\/adapters\/p\d+\/adapter_(model|config)\.\w+\.$/,
    );
    expect(told(error)).not.toContain(CANARY);
    expect(told(error)).not.toContain('Signature');
  });

  it.each([
    ['a missing Secret', 'There is no Secret bucket-key in this namespace.', async () => null],
    [
      'a Secret without the keys',
      'Expected the keys accessKeyId and secretAccessKey (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) in Secret bucket-key.',
      async () => ({ password: CANARY }),
    ],
    [
      'a Secret that cannot be had',
      'The API server does not give Secret bucket-key just now.',
      async () => Promise.reject(new Error(`Bearer ${CANARY}`)),
    ],
  ])('says CredentialsNotFound for %s, and what to do', async (_, message, readSecret) => {
    const error = await failure(fetched(adapter('any'), source({ readSecret })));
    expect([error.reason, error.retryable, error.message]).toEqual(['CredentialsNotFound', true, message]);
    expect(proxy.seen).toEqual([]);
  });

  it('says CredentialsForbidden for a Secret that RBAC hides, which right is missing and where it is given', async () => {
    const refusal = new ApiError({ status: 403, reason: 'Forbidden' }, 'User "bird" cannot get resource');
    const readSecret = async () => Promise.reject(new SecretForbidden('team-a', 'bucket-key', refusal));
    const error = await failure(fetched(adapter('any'), source({ readSecret })));
    expect([error.reason, error.retryable]).toEqual(['CredentialsForbidden', true]);
    expect(error.message).toBe(
      "No Role lets bird get secrets/bucket-key in namespace team-a: name it in sourceSecrets of the pool's chart.",
    );
    expect(proxy.seen).toEqual([]);
  });

  it('is read unsigned without credentials, whatever the environment holds', async () => {
    const path = await put(goodAdapter());
    process.env.AWS_ACCESS_KEY_ID = CANARY;
    process.env.AWS_SECRET_ACCESS_KEY = CANARY;
    try {
      const error = await failure(fetched(adapter(path, { credentialsSecretRef: undefined })));
      expect(error.reason).toBe('SourceAccessDenied');
      expect(error.message).toContain('nothing signs (spec.source names no credentialsSecretRef) to s3://');
    } finally {
      delete process.env.AWS_ACCESS_KEY_ID;
      delete process.env.AWS_SECRET_ACCESS_KEY;
    }
    expect(proxy.seen.length).toBeGreaterThan(0);
    expect(proxy.seen.filter(({ headers }) => headers.authorization !== undefined)).toEqual([]);
    expect(JSON.stringify(proxy.seen)).not.toContain(CANARY);
  });

  it('says SourceUnreachable when nobody listens', async () => {
    await proxy.close();
    const error = await failure(fetched(adapter('any')));
    expect([error.reason, error.retryable]).toEqual(['SourceUnreachable', true]);
    proxy = new FaultProxy(store.endpoint);
    await proxy.listen();
  });
});

describe('an adapter that does not fit', () => {
  const wide = (): Tensors => {
    const tensors: Tensors = new Map();
    for (let layer = 0; layer < 4; layer += 1) {
      tensors.set(
        factorName(layer, 'q_proj', 'A'),
        f32([64, 256], () => 0.1),
      );
      tensors.set(
        factorName(layer, 'q_proj', 'B'),
        f32([256, 64], () => 0.1),
      );
    }
    return tensors;
  };

  it('is refused after its first bytes', async () => {
    const files = {
      ...goodAdapter(7, { r: 64, target_modules: ['q_proj'] }),
      tensors: packSafetensors(wide()),
    };
    const limits = { ...LIMITS, fit: { geometry: PARROT_GEOMETRY, maxRank: 16 } };
    const error = await failure(fetched(adapter(await put(files)), source(), limits));
    expect([error.reason, error.retryable]).toEqual(['RankTooLarge', false]);
    expect(proxy.bytes).toBeLessThan(70_000);
    expect(files.tensors.length).toBeGreaterThan(500_000);
  });

  it.each([
    ['larger than allowed', goodAdapter().tensors, { maxBytes: 1000 }, 'AdapterTooLarge'],
    ['empty', Buffer.alloc(0), {}, 'AdapterMalformed'],
    ['a pickle', Buffer.from('\x80\x04\x95 not tensors at all'), {}, 'AdapterMalformed'],
    ['cut short', goodAdapter().tensors.subarray(0, -1), {}, 'AdapterMalformed'],
    [
      'with bytes after its end',
      Buffer.concat([goodAdapter().tensors, Buffer.alloc(1)]),
      {},
      'AdapterMalformed',
    ],
  ])('is refused for good when it is %s', async (_, tensors, limits, reason) => {
    const path = await put({ tensors, config: goodAdapter().config });
    const error = await failure(fetched(adapter(path), source(), { ...LIMITS, ...limits }));
    expect([error.reason, error.retryable]).toEqual([reason, false]);
    expect([spool.list(), spool.usedBytes]).toEqual([[], 0]);
  });

  it.each([
    ['sha256', { sha256: '0'.repeat(64) }, 'DigestMismatch'],
    ['rank', { rank: 16 }, 'RankMismatch'],
    ['target modules', { targetModules: ['q_proj'] }, 'TargetModulesMismatch'],
  ])('to spec.verify is refused: %s', async (_, verify, reason) => {
    const error = await failure(fetched(adapter(await put(goodAdapter()), {}, verify)));
    expect([error.reason, error.retryable]).toEqual([reason, false]);
    expect([spool.list(), spool.usedBytes]).toEqual([[], 0]);
  });

  it('passes when spec.verify names what it is', async () => {
    const files = goodAdapter();
    const verify = { sha256: await sha256(files.tensors), rank: 8, targetModules: ['v_proj', 'q_proj'] };
    expect((await fetched(adapter(await put(files), {}, verify))).bytes).toBe(files.tensors.length);
  });

  it('waits when the spool has no room', async () => {
    spool = new Spool({ dir, maxBytes: 1000 });
    const error = await failure(fetched(adapter(await put(goodAdapter()))));
    expect([error.reason, error.retryable, spool.usedBytes]).toEqual(['InternalError', true, 0]);
  });
});

/** All that a log could print of an error. */
function told(error: unknown): string {
  const parts: string[] = [];
  for (let current = error; current instanceof Error; current = current.cause) {
    parts.push(
      current.message,
      current.stack ?? '',
      JSON.stringify(current, Object.getOwnPropertyNames(current)),
    );
  }
  return parts.join('\n');
}
