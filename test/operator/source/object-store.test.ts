import { describe, expect, it } from 'vitest';
import { revisionDigest } from '../../../server/contract/digest.ts';
import { goodAdapter } from '../../support/adapter-files.ts';
import {
  adapter,
  failure,
  fetched,
  LIMITS,
  proxy,
  put,
  RANGES,
  sha256,
  signal,
  source,
  spool,
  spooled,
  store,
} from './object-store-bench.ts';

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
