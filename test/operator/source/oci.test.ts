import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { goodAdapter } from '../../support/adapter-files.ts';
import { type Issued, TestCa } from '../../support/certificates.ts';
import { digestOf, FakeRegistry, MANIFEST_TYPE } from './fake-registry.ts';
import { openBench, type SourceBench } from './source-bench.ts';
import { sendFile, WebServer } from './web-server.ts';

const files = goodAdapter(1);
const FILES = { 'adapter_config.json': files.config, 'adapter_model.safetensors': files.tensors };

let ca: TestCa;
let pair: Issued;
beforeAll(() => {
  ca = new TestCa();
  pair = ca.issue('IP:127.0.0.1');
});
afterAll(() => ca.remove());

let bench: SourceBench;
let registry: FakeRegistry;
beforeEach(async () => {
  bench = await openBench('oci');
  registry = await FakeRegistry.start(pair);
  const login = { auths: { [`https://${registry.host}/v1/`]: { auth: btoa('puller:canary') } } };
  bench.secrets.set('ca', { 'ca.crt': ca.certificate });
  bench.secrets.set('login', { '.dockerconfigjson': JSON.stringify(login), 'ca.crt': ca.certificate });
  bench.secrets.set('user', { username: 'puller', password: 'canary\n', 'ca.crt': ca.certificate });
});
afterEach(async () => {
  await Promise.all([registry.stop(), bench.close()]);
});

const at = (reference: string, secret = 'ca') => ({
  image: `${registry.host}/team/sql${reference}`,
  credentialsSecretRef: { name: secret },
});
const shown = () => registry.seen.map(({ authorization }) => authorization?.split(' ')[0] ?? 'nothing');

describe('an artifact of a registry', () => {
  it('arrives whole by its digest, the tensors in ranges', async () => {
    const digest = registry.push('v1', FILES);
    const fetched = await bench.fetch(at(`@${digest}`));
    expect(await bench.spooled(fetched.digest)).toEqual(files.tensors);
    expect(fetched.config).toEqual(JSON.parse(files.config.toString()));
    expect(fetched.sourceVersion).toBe([files.tensors, files.config].map(digestOf).join());
  });

  it('by a tag is what the tag names when it is looked at, and no change where the files are the same', async () => {
    registry.push('v1', FILES);
    const before = await bench.resolve(at(':v1'));
    registry.push('v1', { ...FILES, 'README.md': Buffer.from('new') });
    expect(await bench.resolve(at(':v1'))).toBe(before);
    registry.push('v1', { ...FILES, 'adapter_model.safetensors': goodAdapter(2).tensors });
    expect(await bench.failure(bench.fetch(at(':v1'), before))).toMatchObject({ reason: 'SourceChanged' });
  });

  it.each(['login', 'user'])('is pulled with a token that the %s of a Secret gets', async (secret) => {
    registry.push('v1', FILES);
    registry.asksFor = 'bearer';
    const { digest } = await bench.fetch(at(':v1', secret));
    expect(await bench.spooled(digest)).toEqual(files.tensors);
    // Looked at, then fetched: each with a token of its own.
    expect(shown().slice(0, 4)).toEqual(['nothing', 'Basic', 'Bearer', 'nothing']);
  });

  it('is pulled with the user itself where the registry asks for that', async () => {
    registry.push('v1', FILES);
    registry.asksFor = 'basic';
    expect(await bench.spooled((await bench.fetch(at(':v1', 'login'))).digest)).toEqual(files.tensors);
    expect(new Set(shown())).toEqual(new Set(['nothing', 'Basic']));
  });

  it('is read where the registry says that its bytes lie, which is not shown the token', async () => {
    registry.push('v1', FILES);
    registry.asksFor = 'bearer';
    const store = await FakeRegistry.start(pair);
    for (const [digest, bytes] of registry.blobs) store.blobs.set(digest, bytes);
    registry.elsewhere = `https://${store.host}/v2/team/sql/blobs`;
    try {
      expect(await bench.spooled((await bench.fetch(at(':v1', 'login'))).digest)).toEqual(files.tensors);
      expect(new Set(store.seen.map(({ authorization }) => authorization))).toEqual(new Set([undefined]));
    } finally {
      await store.stop();
    }
  });
});

describe('a registry that is not to be trusted', () => {
  it('is not read without its CA, nor in plain text', async () => {
    registry.push('v1', FILES);
    const { image } = at(':v1');
    expect((await bench.failure(bench.resolve({ image }))).message).toMatch(/Put its CA under ca\.crt/);
    const plain = await WebServer.start();
    plain.answer = (request, response) =>
      sendFile(request, response, { bytes: Buffer.from('{}'), headers: {} });
    const failure = await bench.failure(
      bench.resolve({ image: `${plain.url.replace('http://', '')}/team/sql:v1` }),
    );
    await plain.stop();
    expect([failure.reason, plain.seen]).toEqual(['SourceUnreachable', []]);
  });

  it.each(['adapter_config.json', 'adapter_model.safetensors'] as const)(
    'and sends other bytes for %s is found out',
    async (title) => {
      registry.push('v1', FILES);
      const other = Buffer.from(FILES[title]);
      other[other.length - 2] = (other.at(-2) ?? 0) ^ 1;
      registry.blobs.set(digestOf(FILES[title]), other);
      const failure = await bench.failure(bench.fetch(at(':v1')));
      expect([failure.reason, failure.message]).toEqual([
        'DigestMismatch',
        expect.stringContaining('for spec.source.oci.image but received'),
      ]);
    },
  );

  it('and answers with another manifest than was asked for by digest is found out', async () => {
    const digest = registry.push('v1', FILES);
    registry.manifests.set(digest, Buffer.from('{"layers": []}'));
    const failure = await bench.failure(bench.resolve(at(`@${digest}`)));
    expect(failure.message).toMatch(/^The registry answers with another manifest than oci:\/\//);
  });

  it.each([
    ['the metadata of a cloud', 'https://169.254.169.254/token', /loopback, link-local, metadata/],
    ['plain text', 'http://127.0.0.1:1/token', /asks for a token of no https URL/],
    ['no URL', 'token', /asks for a token of no https URL/],
  ])('and sends for a token to %s is not followed', async (_, realm, message) => {
    registry.push('v1', FILES);
    Object.assign(registry, { asksFor: 'bearer', realm });
    const failure = await bench.failure(bench.resolve(at(':v1', 'login')));
    expect(failure).toMatchObject({ reason: 'SourceInvalid', message: expect.stringMatching(message) });
  });

  it('is shown no password where only the store behind it asks for one', async () => {
    registry.push('v1', FILES);
    const store = await FakeRegistry.start(pair);
    store.asksFor = 'bearer';
    registry.elsewhere = `https://${store.host}/v2/team/sql/blobs`;
    const failure = await bench.failure(bench.fetch(at(':v1', 'login')));
    await store.stop();
    expect([failure.reason, store.seen.filter(({ url }) => url.startsWith('/token'))]).toEqual([
      'SourceAccessDenied',
      [],
    ]);
  });
});

describe('an artifact that cannot be read', () => {
  it.each<[string, string, string, string, RegExp]>([
    ['is not there', ':none', 'ca', 'SourceNotFound', /^There is no oci:\/\/.*\/team\/sql:none\.$/],
    [
      'lacks a file',
      ':half',
      'ca',
      'SourceInvalid',
      /^Expected one layer of title adapter_model\.safetensors in .* but found 0/,
    ],
    ['is an index', ':index', 'ca', 'SourceInvalid', /not an index of several/],
    ['has no tag', '', 'ca', 'SourceInvalid', /^Expected an image of the form/],
    [
      'has a Secret of nothing',
      ':v1',
      'empty',
      'CredentialsNotFound',
      /^Expected \.dockerconfigjson, or the keys/,
    ],
  ])('%s', async (_, reference, secret, reason, message) => {
    registry.push('half', { 'adapter_config.json': files.config });
    registry.put('index', { schemaVersion: 2, mediaType: MANIFEST_TYPE, manifests: [] });
    bench.secrets.set('empty', { token: 'canary' });
    const failure = await bench.failure(bench.resolve(at(reference, secret)));
    expect(failure.reason).toBe(reason);
    expect(failure.message).toMatch(message);
  });

  it('is private, and nobody says who pulls it', async () => {
    registry.push('v1', FILES);
    registry.asksFor = 'basic';
    const failure = await bench.failure(bench.resolve(at(':v1')));
    expect(failure).toMatchObject({
      reason: 'SourceAccessDenied',
      message: expect.stringMatching(/names no credentialsSecretRef with a user of this registry\.$/),
    });
  });
});
