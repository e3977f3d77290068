import { describe, expect, it } from 'vitest';
import { GS, locationOf } from '../../../operator/source/s3-location.ts';
import { goodAdapter } from '../../support/adapter-files.ts';
import { adapter, failure, fetched, proxy, put, signal, source, spooled } from './object-store-bench.ts';

/** That the server of S3 wants signatures to name; Google takes any. */
const region = 'us-east-1';

describe('an adapter in Google Cloud Storage', () => {
  it('is read with requests that a server of S3 takes as signed', async () => {
    const files = goodAdapter();
    const path = await put(files);
    const { digest } = await fetched(adapter(path, { uri: `gs://adapters/${path}/`, region }));
    expect(await spooled(digest)).toEqual(files.tensors);
    expect(proxy.seen[0]?.headers.authorization).toMatch(/^AWS4-HMAC-SHA256 Credential=\w+\//);
  });

  it('is asked for by its generation, which is signed too', async () => {
    const path = await put(goodAdapter());
    const wanted = adapter(path, { uri: `gs://adapters/${path}/`, region, versionId: '1700000000000001' });
    const { sourceVersion } = await source().resolve(wanted, signal);
    expect(sourceVersion.endsWith(',1700000000000001')).toBe(true);
    const [tensors, config] = ['model', 'config'].map(
      (what) => proxy.seen.find(({ url }) => url.includes(what))?.url ?? '',
    );
    expect(tensors).toContain('generation=1700000000000001');
    expect([tensors, config].join()).not.toContain('versionId');
    expect(config).not.toContain('generation');
  });

  it('is told of by its own name', async () => {
    const error = await failure(fetched(adapter('any', { uri: 'gs://adapters/nowhere/', region })));
    expect(error.message).toMatch(/^There is no (bucket adapters|gs:\/\/adapters\/nowhere\/adapter_.*)\.$/);
  });

  it('lies at the endpoint of Google where the spec names none', () => {
    const wanted = adapter('any', { uri: 'gs://my_adapters/sql', endpoint: undefined });
    expect(locationOf(wanted, GS)).toMatchObject({
      bucket: 'my_adapters',
      prefix: 'sql/',
      endpoint: 'https://storage.googleapis.com/',
      region: 'auto',
    });
  });
});
