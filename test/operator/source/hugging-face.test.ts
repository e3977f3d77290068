import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { goodAdapter } from '../../support/adapter-files.ts';
import { FakeHub } from './fake-hub.ts';
import { openBench, type SourceBench } from './source-bench.ts';

let bench: SourceBench;
let hub: FakeHub;
let first: string;
const files = goodAdapter(1);

beforeEach(async () => {
  bench = await openBench('huggingFace');
  hub = await FakeHub.start();
  first = hub.commit(files);
});
afterEach(async () => {
  await Promise.all([hub.stop(), bench.close()]);
});

const at = (more: object = {}) => ({ repo: 'example/sql', revision: 'main', endpoint: hub.hub.url, ...more });

describe('an adapter in a repository of a hub', () => {
  it('arrives whole, through the store behind the hub', async () => {
    const { digest, config } = await bench.fetch(at());
    expect(await bench.spooled(digest)).toEqual(files.tensors);
    expect(config).toEqual(JSON.parse(files.config.toString()));
    expect(hub.cdn.seen.every(({ method }) => method === 'GET')).toBe(true);
  });

  it('is looked at without a word to the store behind the hub', async () => {
    await bench.resolve(at());
    expect(hub.hub.seen.every(({ method }) => method === 'HEAD')).toBe(true);
    expect(hub.cdn.seen).toEqual([]);
  });

  it('is read with a token that the store behind the hub does not get', async () => {
    hub.token = 'canary';
    bench.secrets.set('hub', { HF_TOKEN: 'canary\n' });
    const { digest } = await bench.fetch(at({ tokenSecretRef: { name: 'hub' } }));
    expect(await bench.spooled(digest)).toEqual(files.tensors);
    expect(hub.cdn.seen.length).toBeGreaterThan(0);
    expect(hub.cdn.seen.every(({ headers }) => headers.authorization === undefined)).toBe(true);
  });

  it('is read at the commit at which it was looked at', async () => {
    await bench.fetch(at());
    const read = hub.hub.seen.filter(({ method, url }) => method === 'GET' && !url.startsWith('/cache'));
    expect(read.length).toBeGreaterThan(1);
    expect(read.every(({ url }) => url.startsWith(`/example/sql/resolve/${first}/`))).toBe(true);
  });

  it('has a version that changes with either file, and not with a commit that touches neither', async () => {
    const before = await bench.resolve(at());
    hub.commit(files);
    expect(await bench.resolve(at())).toBe(before);
    hub.commit({ ...files, tensors: goodAdapter(2).tensors });
    const after = await bench.resolve(at());
    expect(after).not.toBe(before);
    hub.commit(goodAdapter(2, { lora_alpha: 32 }));
    expect(await bench.resolve(at())).not.toBe(after);
    expect(await bench.failure(bench.fetch(at(), before))).toMatchObject({ reason: 'SourceChanged' });
    expect((await bench.fetch(at({ revision: first }), before)).sourceVersion).toBe(before);
  });

  it('may lie in a folder', async () => {
    hub.folder = 'step-100/best/';
    expect(await bench.spooled((await bench.fetch(at({ path: '/step-100/best' }))).digest)).toEqual(
      files.tensors,
    );
  });
});

describe('an adapter in a repository is refused', () => {
  it.each<[string, object, string, string]>([
    [
      'a repository that is not there',
      { repo: 'example/none' },
      'SourceNotFound',
      'There is no repository example/none, or it is private. spec.source.huggingFace names no tokenSecretRef.',
    ],
    [
      'a revision that is not there',
      { revision: 'v9' },
      'SourceNotFound',
      'There is no revision v9 in repository example/sql.',
    ],
    [
      'a path out of the repository',
      { path: 'a/../../b' },
      'SourceInvalid',
      'Expected a path without "." and "..".',
    ],
  ])('for %s', async (_, more, reason, message) => {
    expect(await bench.failure(bench.resolve(at(more)))).toMatchObject({ reason, message });
  });

  it('for a file that is not there, by its name', async () => {
    const { reason, message } = await bench.failure(bench.resolve(at({ path: 'none' })));
    expect(reason).toBe('SourceNotFound');
    expect(message).toMatch(/^There is no hf:\/\/example\/sql@main\/none\/adapter_(config|model)\.\w+\.$/);
  });

  it('for terms that nobody accepted', async () => {
    hub.gated = true;
    bench.secrets.set('hub', { token: 'canary' });
    expect(await bench.failure(bench.resolve(at({ tokenSecretRef: { name: 'hub' } })))).toEqual({
      reason: 'SourceAccessDenied',
      message:
        'Repository example/sql is gated: its terms are to be accepted by the owner of the token. May the token of tokenSecretRef read it?',
      terminal: false,
    });
  });

  it('for a server that is no hub', async () => {
    hub.hub.answer = (_request, response) => void response.writeHead(200, { etag: '"a"' }).end();
    const { reason, message } = await bench.failure(bench.resolve(at()));
    expect(reason).toBe('SourceInvalid');
    expect(message).toMatch(/^The hub names no commit, ETag and size for hf:\/\/example\/sql@main\/adapter_/);
  });

  it('where the hub sends to an address that may not be asked', async () => {
    await bench.resolve(at());
    const { answer } = hub.hub;
    hub.hub.answer = (request, response) => {
      if (request.method === 'HEAD') return answer(request, response);
      response.writeHead(302, { location: 'http://169.254.169.254/latest/meta-data/' }).end();
    };
    expect(await bench.failure(bench.fetch(at()))).toEqual({
      reason: 'SourceInvalid',
      message: 'The endpoint is a loopback, link-local, metadata or multicast address, or the API server.',
      terminal: true,
    });
  });

  it('for a Secret without a token, before anything is asked', async () => {
    bench.secrets.set('hub', { password: 'canary' });
    expect(await bench.failure(bench.resolve(at({ tokenSecretRef: { name: 'hub' } })))).toMatchObject({
      reason: 'CredentialsNotFound',
      message: 'Expected the key token (or HF_TOKEN), or ca.crt, in Secret hub.',
    });
    expect(hub.hub.seen).toEqual([]);
  });
});
