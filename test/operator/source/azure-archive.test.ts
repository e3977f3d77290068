import { afterEach, beforeEach, expect, it } from 'vitest';
import { archiveOf } from '../../../operator/source/archive.ts';
import type { SourcedAdapter } from '../../../operator/source/types.ts';
import { digestOf, goodAdapter } from '../../support/adapter-files.ts';
import { FakeAzure } from './fake-azure.ts';
import { openBench, type SourceBench, spooled } from './source-bench.ts';

const FILES = goodAdapter(7);
const DIGEST = digestOf(FILES);

let bench: SourceBench;
let azure: FakeAzure;
const signal = AbortSignal.timeout(60_000);

beforeEach(async () => {
  bench = await openBench('objectStore');
  azure = await FakeAzure.start();
  // Makes the container.
  azure.blobs.set('adapters/other', { bytes: Buffer.from('x'), etag: '"x"' });
  bench.secrets.set('key', { accountKey: azure.accountKey });
});
afterEach(async () => {
  await Promise.all([azure.server.stop(), bench.close()]);
});

/** Where a pushed revision lies below this uri. */
function folderAt(uri: string, secret = 'key'): SourcedAdapter {
  const objectStore = { uri, endpoint: azure.endpoint, credentialsSecretRef: { name: secret } };
  const adapter = {
    metadata: { namespace: 'team-a', name: 'sql' },
    spec: { source: { push: { durability: 'ObjectStore', objectStore } } },
  } as SourcedAdapter;
  return archiveOf(adapter, DIGEST) as SourcedAdapter;
}
const keptAt = (uri: string) => `az://${azure.account}/${uri}`;
const keep = async (folder: SourcedAdapter) =>
  await bench.archive.keep(folder, await spooled(FILES, bench.spool), signal);
const written = () =>
  azure.server.seen
    .filter(({ method }) => method === 'PUT')
    .map(({ url }) => url.split('/').at(-1)?.split('?')[0]);

it('a pushed revision is kept in Azure under its digest, signed, its config last, and comes back as it was', async () => {
  const folder = folderAt(keptAt('adapters/kept here'));
  await keep(folder);
  await keep(folder);
  expect(written()).toEqual(['adapter_model.safetensors', 'adapter_config.json']);
  const blob = azure.blobs.get(`adapters/kept here/${DIGEST.slice(7)}/adapter_model.safetensors`);
  expect(blob?.bytes).toEqual(FILES.tensors);
  expect(await bench.fetch(folder.spec.source.objectStore ?? {})).toMatchObject({ digest: DIGEST });
});

it('a SAS writes where it says so, and else not', async () => {
  bench.secrets.set('reads', { sasToken: azure.sas });
  bench.secrets.set('writes', { sasToken: azure.sas.replace('sp=r', 'sp=rcw') });
  const failure = await bench.failure(keep(folderAt(keptAt('adapters/sas'), 'reads')));
  expect(failure.reason).toBe('SourceAccessDenied');
  await keep(folderAt(keptAt('adapters/sas'), 'writes'));
  expect(written().slice(-2)).toEqual(['adapter_model.safetensors', 'adapter_config.json']);
});

it('of bytes that end early nothing is kept, and the next try keeps them', async () => {
  const folder = folderAt(keptAt('adapters/torn'));
  const revision = await spooled(FILES, bench.spool);
  async function* torn() {
    yield FILES.tensors.subarray(0, 1000);
    throw new Error('the spool is broken');
  }
  const failure = await bench.failure(bench.archive.keep(folder, { ...revision, stream: torn }, signal));
  expect([failure.reason, azure.blobs.size]).toEqual(['SourceUnreachable', 1]);
  await keep(folder);
  expect(azure.blobs.size).toBe(3);
});

it.each<[string, string, string, string]>([
  ['a container that is not there', 'nowhere/kept', 'key', 'SourceNotFound'],
  ['a wrong key', 'adapters/kept', 'wrong', 'SourceAccessDenied'],
])('%s keeps nothing', async (_, uri, secret, reason) => {
  bench.secrets.set('wrong', { accountKey: Buffer.from('canary').toString('base64') });
  expect((await bench.failure(keep(folderAt(keptAt(uri), secret)))).reason).toBe(reason);
  expect(azure.blobs.size).toBe(1);
});
