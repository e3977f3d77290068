import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { goodAdapter } from '../../support/adapter-files.ts';
import { FakeAzure } from './fake-azure.ts';
import { openBench, type SourceBench } from './source-bench.ts';

let bench: SourceBench;
let azure: FakeAzure;
const files = goodAdapter(1);

beforeEach(async () => {
  bench = await openBench('objectStore');
  azure = await FakeAzure.start();
  put('one');
  bench.secrets.set('key', { AZURE_STORAGE_KEY: `${azure.accountKey}\n` });
});
afterEach(async () => {
  await Promise.all([azure.server.stop(), bench.close()]);
});

function put(etag: string, { tensors, config } = files): void {
  azure.blobs.set('adapters/team a/adapter_model.safetensors', { bytes: tensors, etag: `"${etag}"` });
  azure.blobs.set('adapters/team a/adapter_config.json', { bytes: config, etag: `"${etag}"` });
}

const at = (more: object = {}) => ({
  uri: `az://${azure.account}/adapters/team a`,
  endpoint: azure.endpoint,
  credentialsSecretRef: { name: 'key' },
  ...more,
});

describe('an adapter in Azure Blob Storage', () => {
  it('arrives whole by requests that are signed with the key of the account', async () => {
    const { digest, config, sourceVersion } = await bench.fetch(at());
    expect(await bench.spooled(digest)).toEqual(files.tensors);
    expect(config).toEqual(JSON.parse(files.config.toString()));
    expect(sourceVersion).toBe('one,one');
  });

  it('is asked for in one version of the blob, which is signed too', async () => {
    const versionId = '2026-11-30T01:02:03.0000000Z';
    expect(await bench.resolve(at({ versionId }))).toBe(`one,one,${versionId}`);
    const urls = azure.server.seen.map(({ url }) => url);
    expect(urls.filter((url) => url.includes('versionid='))).toEqual([
      expect.stringContaining('adapter_model.safetensors?versionid='),
    ]);
  });

  it.each([
    ['', 'sasToken'],
    ['?', 'AZURE_STORAGE_SAS_TOKEN'],
  ])('is read with a SAS (%s) under %s', async (start, name) => {
    bench.secrets.set('sas', { [name]: `${start}${azure.sas}\n` });
    const { digest } = await bench.fetch(at({ credentialsSecretRef: { name: 'sas' } }));
    expect(await bench.spooled(digest)).toEqual(files.tensors);
    expect(azure.server.seen.every(({ headers }) => headers.authorization === undefined)).toBe(true);
  });

  it('is read without a signature where the container is public', async () => {
    azure.isPublic = true;
    const { digest } = await bench.fetch(at({ credentialsSecretRef: undefined }));
    expect(await bench.spooled(digest)).toEqual(files.tensors);
  });

  it('is refused where it is overwritten while it is read', async () => {
    const version = await bench.resolve(at());
    const { answer } = azure.server;
    azure.server.answer = (request, response) => {
      if (request.headers.range?.startsWith('bytes=16384-')) put('two', goodAdapter(2));
      answer(request, response);
    };
    expect(await bench.failure(bench.fetch(at(), version))).toMatchObject({ reason: 'SourceChanged' });
  });
});

describe('blobs that cannot be read', () => {
  const name = 'az://devaccount/adapters/team a/adapter_(config|model)\\.\\w+';
  it.each<[string, object, string, RegExp]>([
    [
      'a container that is not there',
      { uri: 'az://devaccount/nowhere/sql/' },
      'SourceNotFound',
      /^There is no container nowhere in account devaccount\.$/,
    ],
    [
      'a blob that is not there',
      { uri: 'az://devaccount/adapters/none/' },
      'SourceNotFound',
      /^There is no az:\/\/devaccount\/adapters\/none\/adapter_(config|model)\.\w+\.$/,
    ],
    [
      'no signature where one is wanted',
      { credentialsSecretRef: undefined },
      'SourceAccessDenied',
      new RegExp(
        `^The source denies access \\(403\\) to ${name}\\. Nothing signs the request: spec\\.source names no credentialsSecretRef\\.$`,
      ),
    ],
    [
      'a wrong key',
      { credentialsSecretRef: { name: 'wrong' } },
      'SourceAccessDenied',
      new RegExp(`^The source denies access \\(403\\) to ${name}\\.$`),
    ],
    [
      'a Secret without a key',
      { credentialsSecretRef: { name: 'empty' } },
      'CredentialsNotFound',
      /^Expected the key accountKey \(or AZURE_STORAGE_KEY\), or sasToken \(or AZURE_STORAGE_SAS_TOKEN\), in Secret empty\.$/,
    ],
    [
      'no container',
      { uri: 'az://devaccount' },
      'SourceInvalid',
      /^Expected a uri of the form az:\/\/account\/container\/prefix\/\.$/,
    ],
    [
      'a path out of the container',
      { uri: 'az://devaccount/adapters/../other/' },
      'SourceInvalid',
      /^Expected a prefix without control characters, "\." and "\.\."\.$/,
    ],
  ])('%s', async (_, more, reason, message) => {
    bench.secrets.set('wrong', { accountKey: Buffer.from('canary').toString('base64') });
    bench.secrets.set('empty', { accountName: 'canary' });
    const failure = await bench.failure(bench.resolve(at(more)));
    expect(failure.reason).toBe(reason);
    expect(failure.message).toMatch(message);
  });
});
