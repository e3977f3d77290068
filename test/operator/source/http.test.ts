import { createHash } from 'node:crypto';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { goodAdapter } from '../../support/adapter-files.ts';
import { CERTIFICATE, KEY } from './private-ca.ts';
import { openBench, type SourceBench } from './source-bench.ts';
import { sendFile, WebServer } from './web-server.ts';

let bench: SourceBench;
let server: WebServer;
let other: WebServer;
let files: ReturnType<typeof goodAdapter>;
let etag: string;

beforeEach(async () => {
  files = goodAdapter(1);
  etag = '"one"';
  bench = await openBench('http');
  server = await WebServer.start();
  other = await WebServer.start();
  serve();
});
afterEach(async () => {
  await Promise.all([server.stop(), other.stop(), bench.close()]);
});

const sha256 = () => createHash('sha256').update(files.tensors).digest('hex');
const at = (path = '/sql/weights.safetensors', more: object = {}) => ({
  url: `${server.url}${path}`,
  sha256: sha256(),
  ...more,
});
const bytesOf = (url: string) => (url.includes('adapter_config.json') ? files.config : files.tensors);

function serve({ ranges = true, headers = {} as Record<string, string>, from = server } = {}): void {
  from.answer = (request, response) =>
    sendFile(request, response, { bytes: bytesOf(request.url ?? ''), ranges, headers: { etag, ...headers } });
}

describe('an adapter on a web server', () => {
  it('arrives whole, in ranges, with the config of the same folder', async () => {
    const { digest, config } = await bench.fetch(at());
    expect(await bench.spooled(digest)).toEqual(files.tensors);
    expect(config).toEqual(JSON.parse(files.config.toString()));
    const asked = new Set(server.seen.map(({ url }) => url));
    expect(asked).toEqual(new Set(['/sql/weights.safetensors', '/sql/adapter_config.json']));
    expect(server.seen.filter(({ headers }) => headers.range?.startsWith('bytes=16384-')).length).toBe(1);
  });

  it('arrives whole from a server that knows no ranges, in one piece', async () => {
    serve({ ranges: false });
    const { digest } = await bench.fetch(at());
    expect(await bench.spooled(digest)).toEqual(files.tensors);
    expect(server.seen.filter(({ method, url }) => method === 'GET' && url.includes('weights')).length).toBe(
      1,
    );
  });

  it.each([403, 405, 501])('arrives from a server that answers %s to HEAD', async (status) => {
    const { answer } = server;
    server.answer = (request, response) =>
      request.method === 'HEAD' ? void response.writeHead(status).end() : answer(request, response);
    expect(await bench.spooled((await bench.fetch(at())).digest)).toEqual(files.tensors);
  });

  it('costs one HEAD for each file to be looked at, and has a version that changes with the ETag', async () => {
    const before = await bench.resolve(at());
    expect(server.seen.map(({ method }) => method)).toEqual(['HEAD', 'HEAD']);
    expect(await bench.resolve(at())).toBe(before);
    etag = '"two"';
    expect(await bench.resolve(at())).not.toBe(before);
  });

  it('is asked for with the query of its URL, which nobody is told', async () => {
    const source = at('/sql/weights.safetensors?signature=canary');
    await bench.fetch(source);
    expect(server.seen.every(({ url }) => url.endsWith('?signature=canary'))).toBe(true);
    server.answer = (_request, response) => void response.writeHead(403).end();
    const { message } = await bench.failure(bench.resolve(source));
    expect(message).toMatch(
      /^The source denies access \(403\) to http:\/\/127\.0\.0\.1:\d+\/sql\/(weights\.safetensors|adapter_config\.json)\. spec\.source\.http names no credentialsSecretRef with a token\.$/,
    );
  });
});

describe('a config of its own URL', () => {
  const configSha256 = () => createHash('sha256').update(files.config).digest('hex');
  const elsewhere = (more: object = {}) => ({
    configURL: `${other.url}/configs/adapter_config.json?signature=b`,
    configSha256: configSha256(),
    ...more,
  });

  it('is read from there, without the credentials of the other server', async () => {
    bench.secrets.set('web', { token: 'canary' });
    serve({ from: other });
    const { config } = await bench.fetch(
      at('/a.safetensors?signature=a', { ...elsewhere(), credentialsSecretRef: { name: 'web' } }),
    );
    expect(config).toEqual(JSON.parse(files.config.toString()));
    const asked = (from: WebServer) =>
      new Set(from.seen.map(({ url, headers }) => `${url} ${headers.authorization}`));
    expect(asked(server)).toEqual(new Set(['/a.safetensors?signature=a Bearer canary']));
    expect(asked(other)).toEqual(new Set(['/configs/adapter_config.json?signature=b undefined']));
  });

  it.each([
    [
      'is not what its sha256 says',
      { configSha256: 'a'.repeat(64) },
      'DigestMismatch',
      /spec\.source\.http\.configSha256/,
    ],
    [
      'is of the metadata of a cloud',
      { configURL: 'http://169.254.169.254/adapter_config.json' },
      'SourceInvalid',
      /metadata/,
    ],
    [
      'names a user',
      { configURL: 'http://a:canary@models.test/c.json' },
      'SourceInvalid',
      /^Expected a configURL without user/,
    ],
  ])('that %s is refused', async (_, more, reason, message) => {
    serve({ from: other });
    const failure = await bench.failure(bench.fetch(at('/a.safetensors', elsewhere(more))));
    expect(failure).toMatchObject({ reason, message: expect.stringMatching(message) });
  });
});

describe('an adapter on a web server is refused', () => {
  it('where it is not what sha256 says', async () => {
    const wrong = 'a'.repeat(64);
    expect(await bench.failure(bench.fetch(at('/a.safetensors', { sha256: wrong })))).toEqual({
      reason: 'DigestMismatch',
      message: `Expected ${wrong} for spec.source.http.sha256 but received "${sha256()}"`,
      terminal: true,
    });
  });

  it.each([true, false])('where another version is read than was looked at (ranges: %s)', async (ranges) => {
    serve({ ranges });
    const version = await bench.resolve(at());
    const { answer } = server;
    server.answer = (request, response) => {
      if (request.method === 'GET') etag = '"two"';
      answer(request, response);
    };
    expect(await bench.failure(bench.fetch(at(), version))).toMatchObject({ reason: 'SourceChanged' });
  });

  it('where it breaks off, from a server without ranges too', async () => {
    server.answer = (request, response) => {
      const bytes = bytesOf(request.url ?? '');
      response.writeHead(200, { etag, 'content-length': bytes.length });
      if (request.method === 'HEAD' || bytes === files.config) return void response.end(bytes);
      response.write(bytes.subarray(0, 1_000), () => response.destroy());
    };
    expect(await bench.failure(bench.fetch(at()))).toEqual({
      reason: 'SourceUnreachable',
      message: 'The source broke a transfer off.',
      terminal: false,
    });
  });

  it.each<[number, string, RegExp, boolean]>([
    [404, 'SourceNotFound', /^There is no http:\/\/127\.0\.0\.1:\d+\/sql\/[a-z_.]+\.$/, false],
    [401, 'SourceAccessDenied', /^The source denies access \(401\) to http:/, false],
    [503, 'SourceUnreachable', /^The source fails \(503\): http:/, false],
    [429, 'SourceUnreachable', /^The source fails \(429\): http:/, false],
    [400, 'SourceInvalid', /^The source refuses the request \(400\): http:/, true],
  ])('with words for %s', async (status, reason, message, terminal) => {
    server.answer = (_request, response) => void response.writeHead(status).end('canary');
    const failure = await bench.failure(bench.resolve(at()));
    expect(failure).toMatchObject({ reason, terminal });
    expect(failure.message).toMatch(message);
  });

  it('where no size is named', async () => {
    server.answer = (_request, response) => void response.writeHead(200, { etag }).end();
    const { reason, message } = await bench.failure(bench.resolve(at()));
    expect([reason, message]).toEqual([
      'SourceInvalid',
      expect.stringMatching(/^The source names no size \(Content-Length\) for http:/),
    ]);
  });
});

describe('a redirect', () => {
  const to = (location: (url: string) => string) => {
    server.answer = (request, response) =>
      void response.writeHead(302, { location: location(request.url ?? '') }).end();
  };

  it('is followed, without the credentials where it leads to another server', async () => {
    bench.secrets.set('web', { token: 'canary' });
    serve({ from: other });
    to((url) => `${other.url}${url}`);
    const { digest } = await bench.fetch(at('/a.safetensors', { credentialsSecretRef: { name: 'web' } }));
    expect(await bench.spooled(digest)).toEqual(files.tensors);
    expect(new Set(server.seen.map(({ headers }) => headers.authorization))).toEqual(
      new Set(['Bearer canary']),
    );
    expect(new Set(other.seen.map(({ headers }) => headers.authorization))).toEqual(new Set([undefined]));
  });

  it.each([
    ['metadata of the cloud', 'http://169.254.169.254/latest/'],
    ['the loopback by another name', 'http://[::1]/'],
  ])('to %s is not', async (_, location) => {
    to(() => location);
    expect(await bench.failure(bench.resolve(at()))).toEqual({
      reason: 'SourceInvalid',
      message: 'The endpoint is a loopback, link-local, metadata or multicast address, or the API server.',
      terminal: true,
    });
  });

  it.each([
    ['to itself', (url: string) => url, /^More than 5 redirects: http:/],
    ['to something else', () => 'file:///etc/passwd', /^A redirect to something else than https: http:/],
    ['to no URL', () => 'http://', /^A redirect to no URL: http:/],
  ])('%s is not', async (_, location, message) => {
    to(location);
    const failure = await bench.failure(bench.resolve(at()));
    expect(failure).toMatchObject({ reason: 'SourceInvalid', terminal: true });
    expect(failure.message).toMatch(message);
  });
});

describe('a web server is asked', () => {
  it.each([
    ['a token', { token: 'canary\n' }, 'Bearer canary'],
    ['a name and a password', { username: 'a', password: 'b' }, 'Basic YTpi'],
    ['a CA alone', { 'ca.crt': CERTIFICATE }, undefined],
  ])('with %s of its Secret', async (_, secret, authorization) => {
    bench.secrets.set('web', secret);
    await bench.resolve(at('/a.safetensors', { credentialsSecretRef: { name: 'web' } }));
    expect(server.seen.map(({ headers }) => headers.authorization)).toEqual([authorization, authorization]);
  });

  it('not at all where the Secret holds none of these', async () => {
    bench.secrets.set('web', { password: 'canary' });
    const failure = await bench.failure(
      bench.resolve(at('/a.safetensors', { credentialsSecretRef: { name: 'web' } })),
    );
    expect(failure).toEqual({
      reason: 'CredentialsNotFound',
      message: 'Expected the key token, or username and password, or ca.crt, in Secret web.',
      terminal: false,
    });
    expect(server.seen).toEqual([]);
  });

  it.each([
    'http://169.254.169.254/a.safetensors',
    'http://[::1]/a.safetensors',
    'ftp://models.test/a.safetensors',
    'http://a:canary@models.test/a.safetensors',
  ])('not at %s', async (url) => {
    const failure = await bench.failure(bench.resolve({ url, sha256: sha256() }));
    expect(failure).toMatchObject({ reason: 'SourceInvalid', terminal: true });
    expect(failure.message).not.toContain('canary');
  });

  it('over TLS with the CA of its Secret, and not without', async () => {
    const tls = createServer({ cert: CERTIFICATE, key: KEY }, (request, response) =>
      sendFile(request, response, { bytes: bytesOf(request.url ?? ''), headers: { etag } }),
    );
    await new Promise<void>((resolve) => tls.listen(0, '127.0.0.1', resolve));
    try {
      const url = `https://127.0.0.1:${(tls.address() as AddressInfo).port}/a.safetensors`;
      const source = { url, sha256: sha256() };
      expect((await bench.failure(bench.resolve(source))).message).toMatch(
        /^The source is not trusted \(DEPTH_ZERO_SELF_SIGNED_CERT\): https:.* Put its CA under ca\.crt into the Secret/,
      );
      bench.secrets.set('ca', { 'ca.crt': CERTIFICATE });
      const { digest } = await bench.fetch({ ...source, credentialsSecretRef: { name: 'ca' } });
      expect(await bench.spooled(digest)).toEqual(files.tensors);
    } finally {
      tls.closeAllConnections();
      tls.close();
    }
  });
});
