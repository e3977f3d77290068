import { mkdtemp, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Rest, type RestOptions } from '../../../operator/kube/rest.ts';
import { eventually } from './eventually.ts';
import { FakeClock } from './fake-clock.ts';
import { ScriptedServer } from './scripted-server.ts';

describe('Rest', () => {
  let server: ScriptedServer;
  let clock: FakeClock;
  let dir: string;
  let open: Rest[];

  beforeEach(async () => {
    server = await ScriptedServer.start(() => ({ status: 200, body: { ok: true } }));
    clock = new FakeClock();
    dir = await mkdtemp(join(tmpdir(), 'rest-'));
    open = [];
  });

  afterEach(async () => {
    await Promise.all(open.map((rest) => rest.close()));
    await server.stop();
    await rm(dir, { recursive: true });
  });

  function restOf(options: Partial<RestOptions> = {}): Rest {
    const rest = new Rest({ credentials: server.credentials, clock, ...options });
    open.push(rest);
    return rest;
  }

  async function restOfKubeconfig(user: object, cluster: object = {}): Promise<Rest> {
    const kubeconfig = join(dir, 'kubeconfig');
    const config = {
      clusters: [{ name: 'c', cluster: { server: `${server.url}/behind/a/proxy/`, ...cluster } }],
      users: [{ name: 'u', user }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'x',
    };
    await writeFile(kubeconfig, JSON.stringify(config));
    const rest = Rest.fromKubeconfig({ kubeconfig, clock });
    open.push(rest);
    return rest;
  }

  const get = { method: 'GET', path: '/api/v1/pods' } as const;
  const tokens = () => server.requests.map(({ headers }) => headers.authorization);

  it('sends no write that comes to its turn when it may write no more', async () => {
    let mayWrite = true;
    const rest = restOf({ perSecondMax: 1, burst: 1, mayWrite: () => mayWrite });
    const put = { method: 'PUT', path: '/api/v1/pods', body: {} } as const;
    await rest.request(put);
    const waiting = rest.request(put).catch((error: unknown) => error);
    mayWrite = false;
    await clock.advance(1_000);
    expect(await waiting).toMatchObject({ status: 0, reason: 'NotLeading' });
    // What decides who may, and who asks, is none of what may not be written.
    await rest.request({ ...put, lane: 'lease' });
    await rest.request({ ...put, method: 'POST', lane: 'review' });
    const reading = rest.request(get);
    await clock.advance(1_000);
    await reading;
    expect(server.requests.map(({ method }) => method)).toEqual(['PUT', 'PUT', 'POST', 'GET']);
  });

  it('sends method, query and body, and parses the reply', async () => {
    const reply = await restOf().request({
      method: 'PATCH',
      path: '/api/v1/pods',
      query: { a: 'x y', b: 1, none: undefined },
      body: { hello: 'world' },
    });
    expect(reply).toEqual({ ok: true });
    const [request] = server.requests;
    expect(request).toMatchObject({ method: 'PATCH', path: '/api/v1/pods', body: { hello: 'world' } });
    expect(Object.fromEntries(request?.query ?? [])).toEqual({ a: 'x y', b: '1' });
    expect(request?.headers['content-type']).toBe('application/merge-patch+json');
  });

  it('keeps its connections, and never opens more than it may', async () => {
    const rest = restOf({ connectionsMax: 4 });
    for (let call = 0; call < 50; call += 1) await rest.request(get);
    // A connection counts as busy for a moment after its reply has been read.
    expect(server.connections).toBeLessThanOrEqual(2);
    await Promise.all(Array.from({ length: 50 }, () => rest.request(get)));
    expect(server.connections).toBeLessThanOrEqual(4);
  });

  it('throws what the API server said', async () => {
    const body = { kind: 'Status', reason: 'Conflict', message: 'the object has been modified' };
    server.script = () => ({ status: 409, body });
    await expect(restOf().request(get)).rejects.toMatchObject({
      status: 409,
      reason: 'Conflict',
      message: 'GET /api/v1/pods: 409 the object has been modified',
      retryable: false,
    });
  });

  it('says how long the API server wants to be left alone', async () => {
    server.script = () => ({ status: 429, headers: { 'retry-after': '7' } });
    await expect(restOf().request(get)).rejects.toMatchObject({ status: 429, retryAfterMs: 7_000 });
    server.script = () => ({ status: 503, body: { details: { retryAfterSeconds: 3 } } });
    await expect(restOf().request(get)).rejects.toMatchObject({ status: 503, retryAfterMs: 3_000 });
  });

  it('calls a reset, silence and nonsense by their names', async () => {
    const rest = restOf();
    server.script = () => 'reset';
    await expect(rest.request(get)).rejects.toMatchObject({
      status: 0,
      reason: 'Unreachable',
      retryable: true,
    });
    server.script = () => ({ raw: '{"half": ' });
    await expect(rest.request(get)).rejects.toMatchObject({ status: 0, reason: 'Malformed' });
    server.script = () => 'silence';
    const waiting = rest.request({ ...get, timeoutMs: 5_000 });
    await eventually(() => expect(server.requests).toHaveLength(3));
    await Promise.all([
      expect(waiting).rejects.toMatchObject({ status: 0, reason: 'Timeout' }),
      clock.advance(5_000),
    ]);
  });

  it('throws the reason of the signal when that aborts', async () => {
    server.script = () => 'silence';
    const stop = new AbortController();
    const waiting = restOf().request({ ...get, signal: stop.signal });
    await eventually(() => expect(server.requests).toHaveLength(1));
    stop.abort(new Error('told to stop'));
    await expect(waiting).rejects.toThrow('told to stop');
  });

  describe('stream', () => {
    async function linesOf(rest: Rest): Promise<string[]> {
      const lines: string[] = [];
      for await (const line of rest.stream({ path: '/api/v1/pods' })) lines.push(line);
      return lines;
    }

    it('cuts lines where they end, wherever the chunks do', async () => {
      const whole = Buffer.from('{"a":"ä"}\n\n{"b":"€"}\n');
      server.script = () => ({
        stream: (response) => {
          response.writeHead(200);
          for (const byte of whole) response.write(Buffer.of(byte));
          response.end();
        },
      });
      expect(await linesOf(restOf())).toEqual(['{"a":"ä"}', '{"b":"€"}']);
    });

    it('fails on a line that is cut short', async () => {
      server.script = () => ({ raw: '{"a":1}\n{"b"' });
      await expect(linesOf(restOf())).rejects.toMatchObject({ reason: 'Malformed' });
    });

    it('fails on a line that does not end', async () => {
      server.script = () => ({ raw: 'x'.repeat(9 << 20) });
      await expect(linesOf(restOf())).rejects.toMatchObject({ reason: 'TooLarge' });
    });

    it('lets go of the connection when the reader leaves', async () => {
      let closed = false;
      server.script = () => ({
        stream: (response) => {
          response.writeHead(200).write('{}\n');
          response.on('close', () => {
            closed = true;
          });
        },
      });
      for await (const _ of restOf().stream({ path: '/api/v1/pods' })) break;
      await eventually(() => expect(closed).toBe(true));
    });
  });

  describe('credentials', () => {
    it('takes a token, and a server behind a path, from the kubeconfig', async () => {
      await (await restOfKubeconfig({ token: 't' })).request(get);
      expect(server.requests[0]).toMatchObject({ path: '/behind/a/proxy/api/v1/pods' });
      expect(tokens()).toEqual(['Bearer t']);
    });

    it('takes a name and a password from the kubeconfig', async () => {
      await (await restOfKubeconfig({ username: 'me', password: 'pw' })).request(get);
      expect(tokens()).toEqual([`Basic ${Buffer.from('me:pw').toString('base64')}`]);
    });

    const tokenFileUsers: Record<string, (file: string) => object> = {
      'tokenFile of a user': () => ({ tokenFile: './token' }),
      'the ServiceAccount of a pod': (file) => ({
        'auth-provider': { name: 'tokenFile', config: { tokenFile: file } },
      }),
    };
    for (const [name, userOf] of Object.entries(tokenFileUsers)) {
      it(`reads ${name} anew every minute`, async () => {
        const file = join(dir, 'token');
        await writeFile(file, 'first\n');
        const rest = await restOfKubeconfig(userOf(file));
        await rest.request(get);
        await writeFile(file, 'second');
        await rest.request(get);
        await clock.advance(61_000);
        await rest.request(get);
        expect(tokens()).toEqual(['Bearer first', 'Bearer first', 'Bearer second']);
      });
    }

    it('keeps the last good token while the file is away or empty', async () => {
      const file = join(dir, 'token');
      await writeFile(file, 'good');
      const rest = await restOfKubeconfig({ tokenFile: file });
      await rest.request(get);
      await unlink(file);
      await clock.advance(61_000);
      await rest.request(get);
      await writeFile(file, '');
      await rest.request(get);
      expect(tokens()).toEqual(['Bearer good', 'Bearer good', 'Bearer good']);
    });

    it('reads the token at once when it is refused, and tries once more', async () => {
      const file = join(dir, 'token');
      await writeFile(file, 'old');
      const rest = await restOfKubeconfig({ tokenFile: file });
      server.script = ({ headers }) => ({ status: headers.authorization === 'Bearer new' ? 200 : 401 });
      await expect(rest.request(get)).rejects.toMatchObject({ status: 401 });
      expect(server.requests).toHaveLength(2);
      await writeFile(file, 'new');
      await rest.request(get);
      expect(tokens()).toEqual(['Bearer old', 'Bearer old', 'Bearer old', 'Bearer new']);
    });

    it('lets a crowd of first calls share one reading of the files and one pool of connections', async () => {
      const rest = await restOfKubeconfig({ token: 'good' });
      await Promise.all(Array.from({ length: 80 }, () => rest.request(get)));
      expect(server.connections).toBeLessThanOrEqual(64);
      expect(new Set(tokens())).toEqual(new Set(['Bearer good']));
    });

    it('goes over to new certificates without losing a call', async () => {
      const ca = join(dir, 'ca');
      await writeFile(ca, 'one');
      const rest = await restOfKubeconfig({ token: 't' }, { 'certificate-authority': ca });
      const calls = Array.from({ length: 20 }, () => rest.request(get));
      await Promise.all(calls);
      const before = server.connections;
      await writeFile(ca, 'two');
      await clock.advance(61_000);
      await Promise.all(Array.from({ length: 20 }, () => rest.request(get)));
      expect(server.connections).toBeGreaterThan(before);
      const after = server.connections;
      await clock.advance(61_000);
      await rest.request(get);
      expect(server.connections).toBe(after);
    });

    it('says so when there never was a token', async () => {
      const rest = await restOfKubeconfig({ tokenFile: 'nowhere' });
      await expect(rest.request(get)).rejects.toMatchObject({ cause: { code: 'kubeconfig_unusable' } });
    });

    it('says so when there is nothing to go by', () => {
      vi.stubEnv('KUBECONFIG', undefined);
      vi.stubEnv('HOME', dir);
      expect(() => Rest.fromKubeconfig()).toThrow('neither a kubeconfig');
      vi.unstubAllEnvs();
    });

    it('refuses a kubeconfig that it cannot follow', async () => {
      await expect(restOfKubeconfig({}, { 'proxy-url': 'http://p' })).rejects.toMatchObject({
        code: 'kubeconfig_unusable',
      });
      expect(() => Rest.fromKubeconfig({ kubeconfig: join(dir, 'none') })).toThrow('cannot be read');
    });
  });

  describe('pace', () => {
    /** Calls until `forMs` have passed, as many at once as the pace allows, and returns how many went out. */
    async function callsWithin(rest: Rest, forMs: number): Promise<number> {
      const before = server.requests.length;
      const stop = new AbortController();
      const caller = async () => {
        while (!stop.signal.aborted) await rest.request({ ...get, signal: stop.signal }).catch(() => {});
      };
      const callers = Array.from({ length: 20 }, caller);
      for (let passed = 0; passed < forMs; passed += 100) {
        await clock.advance(100);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      const calls = server.requests.length - before;
      stop.abort();
      await Promise.all(callers);
      return calls;
    }

    it('sends at most five calls a second into a storm, and is back to work soon after', async () => {
      const rest = restOf();
      server.script = () => ({ status: 500 });
      await callsWithin(rest, 10_000);
      expect(await callsWithin(rest, 10_000)).toBeLessThanOrEqual(50);
      server.script = () => ({ status: 200 });
      await callsWithin(rest, 20_000);
      expect(await callsWithin(rest, 1_000)).toBeGreaterThanOrEqual(25);
    });

    it('sends nothing, the lease excepted, for as long as it was asked not to', async () => {
      const rest = restOf();
      server.script = () => ({ status: 429, headers: { 'retry-after': '30' } });
      await expect(rest.request(get)).rejects.toMatchObject({ status: 429 });
      server.script = () => ({ status: 200 });
      expect(await callsWithin(rest, 29_000)).toBe(0);
      await rest.request({ ...get, lane: 'lease' });
      expect(await callsWithin(rest, 2_000)).toBeGreaterThan(0);
    });

    it('lets a review out at once while hundreds of other calls wait for their turns', async () => {
      const rest = restOf();
      const stop = new AbortController();
      const usual = Array.from({ length: 600 }, () =>
        rest.request({ ...get, signal: stop.signal }).catch(() => {}),
      );
      await rest.request({ ...get, lane: 'review' });
      expect(server.requests.length).toBeLessThan(600);
      stop.abort();
      await Promise.all(usual);
    });

    it('counts the wait for a turn against the timeout, and takes nothing of the pace for a call that gave up', async () => {
      const rest = restOf();
      const impatient = Array.from({ length: 900 }, () =>
        rest.request({ ...get, timeoutMs: 1_000 }).catch(({ reason }) => reason as string),
      );
      await clock.advance(1_000);
      const reasons = await Promise.all(impatient);
      expect(reasons.filter((reason) => reason === 'Timeout').length).toBeGreaterThan(400);
      expect(await callsWithin(rest, 1_000)).toBeGreaterThanOrEqual(25);
    });

    it('does not take a refusal for distress', async () => {
      const rest = restOf();
      server.script = () => ({ status: 404 });
      await callsWithin(rest, 3_000);
      expect(await callsWithin(rest, 1_000)).toBeGreaterThanOrEqual(25);
    });
  });
});
