import { beforeEach, describe, expect, it, vi } from 'vitest';
import { archiveOf } from '../../../operator/source/archive.ts';
import type { SourcedAdapter } from '../../../operator/source/types.ts';
import { digestOf, goodAdapter } from '../../support/adapter-files.ts';
import {
  adapter,
  archive,
  failure,
  fetched,
  proxy,
  put,
  signal,
  spool,
  store,
} from './object-store-bench.ts';
import { spooled } from './source-bench.ts';

const FILES = goodAdapter(7);
const DIGEST = digestOf(FILES);

let uris = 0;
let folder: SourcedAdapter;

/** A pushed adapter that is kept below this prefix. */
function pushed(prefix: string, more: object = {}): SourcedAdapter {
  const { metadata, spec } = adapter(prefix, more);
  const { objectStore } = spec.source;
  return {
    metadata,
    spec: { source: { push: { durability: 'ObjectStore', objectStore } } },
  } as SourcedAdapter;
}

/** Where the revision of FILES lies. */
function folderOf(wanted: SourcedAdapter): SourcedAdapter {
  const found = archiveOf(wanted, DIGEST);
  if (found === null) throw new Error('Expected an archive');
  return found;
}

const spooledRevision = () => spooled(FILES, spool);

const written = () =>
  proxy.seen.filter(({ method }) => method === 'PUT').map(({ url }) => url.split('/').at(-1)?.split('?')[0]);

beforeEach(async () => {
  // Makes the bucket.
  await put(FILES, 'other');
  folder = folderOf(pushed(`kept-${uris++}`));
});

describe('a pushed revision', () => {
  it('is kept under its digest, and comes back as it was', async () => {
    await archive().keep(folder, await spooledRevision(), signal);
    expect(folder.spec.source.objectStore?.uri).toMatch(new RegExp(`/${DIGEST.slice(7)}/$`));
    expect(await fetched(folder)).toMatchObject({ digest: DIGEST, bytes: FILES.tensors.length });
  });

  it('is written once, its config last', async () => {
    await archive().keep(folder, await spooledRevision(), signal);
    await archive().keep(folder, await spooledRevision(), signal);
    expect(written()).toEqual(['adapter_model.safetensors', 'adapter_config.json']);
  });

  it('is written anew where half of it is there', async () => {
    const { uri = '' } = folder.spec.source.objectStore ?? {};
    const key = uri.replace('s3://adapters/', '');
    await store.put('adapters', `${key}adapter_model.safetensors`, Buffer.from('half'));
    await archive().keep(folder, await spooledRevision(), signal);
    expect(await fetched(folder)).toMatchObject({ digest: DIGEST });
  });

  it('is not kept with a wrong key, nor where nobody listens', async () => {
    const revision = await spooledRevision();
    const unsigned = folderOf(pushed('kept', { credentialsSecretRef: undefined }));
    expect((await failure(archive().keep(unsigned, revision, signal))).reason).toBe('SourceAccessDenied');
    const nowhere = folderOf(pushed('kept', { endpoint: 'http://127.0.0.1:9' }));
    expect((await failure(archive().keep(nowhere, revision, signal))).reason).toBe('SourceUnreachable');
  });

  it('writes nothing to the console where it cannot be kept', async () => {
    const said = vi.spyOn(console, 'warn');
    const nowhere = folderOf(pushed('kept', { endpoint: 'http://127.0.0.1:9' }));
    await failure(archive().keep(nowhere, await spooledRevision(), signal));
    expect(said).not.toHaveBeenCalled();
  });

  it('of an adapter that keeps pushes in memory has no place', () => {
    expect(archiveOf({ ...folder, spec: { source: { push: { durability: 'Memory' } } } }, DIGEST)).toBeNull();
  });
});
