import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { goodAdapter } from '../../support/adapter-files.ts';
import { configHeader } from './adapters.ts';
import { TOKENS } from './fake-reviews.ts';
import { put, type Rig, startRig } from './harness.ts';
import { PATH, RawClient } from './raw-client.ts';

let rig: Rig;
let connections: { bytesRead: number }[];
beforeEach(async () => {
  rig = await startRig();
  connections = [];
  rig.app.server.on('connection', (socket) => connections.push(socket));
});
afterEach(() => rig.close());

const MIB = 2 ** 20;
const files = goodAdapter();
const config = configHeader(files.config);

/** Sends for ever, as fast as the server takes it, until the connection ends. */
async function flood(client: RawClient, block = Buffer.alloc(MIB)): Promise<void> {
  let open = true;
  client.socket.on('close', () => {
    open = false;
  });
  const more = () => {
    while (open && client.socket.write(block));
  };
  client.socket.on('drain', more);
  more();
  await client.ended();
}

describe('a caller who may not push', () => {
  const cases: [string, string | null, string, number][] = [
    ['no token', null, PATH, 401],
    ['another scheme', 'Basic dXNlcjpwYXNz', PATH, 401],
    ['an unreadable token', 'Bearer a b', PATH, 401],
    ['an expired token', `Bearer ${TOKENS.expired}`, PATH, 401],
    ['a token for another audience', `Bearer ${TOKENS.wrongAudience}`, PATH, 401],
    ['a token of a server without audiences', `Bearer ${TOKENS.noAudience}`, PATH, 401],
    ['a token of another namespace', `Bearer ${TOKENS.otherNamespace}`, PATH, 403],
    [
      'the right token for another namespace',
      `Bearer ${TOKENS.trainer}`,
      PATH.replace('team-a', 'team-b'),
      403,
    ],
    ['no token, and no such route', null, '/v1/anything', 401],
  ];

  it.each(cases)(
    'is refused without a byte of the body being asked for: %s',
    async (_, authorization, path, status) => {
      const client = new RawClient(rig.port);
      client.head({ authorization, 'content-length': 64 * MIB, expect: '100-continue' }, { path });
      const reply = await client.reply();
      expect([reply?.status, reply?.headers.connection]).toEqual([status, 'close']);
      await client.ended();
      expect(rig.publisher.pods.flatMap(({ uploads }) => uploads)).toEqual([]);
    },
  );

  it('is told the same in every case', async () => {
    const bodies = new Map<number, Set<string>>();
    for (const [, authorization, path, status] of cases) {
      const client = new RawClient(rig.port);
      client.head({ authorization, 'content-length': 10 }, { path });
      const reply = await client.reply();
      bodies.set(
        status,
        (bodies.get(status) ?? new Set()).add(
          JSON.stringify([reply?.body, reply?.headers['www-authenticate']]),
        ),
      );
      client.close();
    }
    expect([...bodies.values()].map(({ size }) => size)).toEqual([1, 1]);
  });

  it.each([null, `Bearer ${TOKENS.otherNamespace}`])(
    'hears so while it sends, and no more is read than arrived with the head: %s',
    async (authorization) => {
      const client = new RawClient(rig.port);
      client.head({ authorization, 'content-length': 1024 * MIB });
      void flood(client);
      expect((await client.reply())?.status).toBe(authorization === null ? 401 : 403);
      const readThen = connections[0]?.bytesRead ?? 0;
      await client.ended();
      expect(connections[0]?.bytesRead).toBe(readThen);
      expect(readThen).toBeLessThan(256 * 1024);
    },
  );

  it('with a token of 10 MB gets 431 and asks the API server nothing', async () => {
    const client = new RawClient(rig.port);
    client.head({ authorization: `Bearer ${'x'.repeat(10 * MIB)}` });
    expect((await client.reply())?.body.error.code).toBe('header_too_large');
    expect(rig.reviews.asked).toEqual([]);
  });

  it('costs one line in the log however often it comes, and is counted each time', async () => {
    for (let call = 0; call < 5; call += 1) {
      const client = new RawClient(rig.port);
      client.head({ authorization: null, 'content-length': 10 });
      expect((await client.reply())?.status).toBe(401);
      client.close();
    }
    expect(rig.logs).toHaveLength(1);
    expect(rig.counted).toEqual(Array(5).fill('unauthenticated'));
  });

  it('is not taken for a good one while the API server is down', async () => {
    rig.reviews.down = true;
    const { status, headers, body } = await put(rig, files);
    expect([status, headers['retry-after'], body.error.code]).toEqual([504, '1', 'timeout']);
    rig.reviews.down = false;
    expect((await put(rig, files)).status).toBe(200);
  });

  it('gets the names in the path checked before anybody is asked', async () => {
    for (const path of [
      '/v1/namespaces/Team/adapters/sql/revisions',
      '/v1/namespaces/team-a/adapters/..%2Fsql/revisions',
      '/v1/namespaces/team-a/adapters/a%0d%0ab/revisions',
      '/v1/namespaces/team-a/adapters/__proto__/revisions',
      `/v1/namespaces/team-a/adapters/${'a'.repeat(254)}/revisions`,
    ]) {
      const client = new RawClient(rig.port);
      client.head({ 'content-length': 10 }, { path });
      expect((await client.reply())?.body.error.code).toBe('invalid_name');
      client.close();
    }
    expect(rig.reviews.asked).toEqual([]);
  });
});

describe('a client that asks before it sends', () => {
  it('is told to go on only when it is its turn', async () => {
    const client = new RawClient(rig.port);
    let seen: IncomingMessage | null = null;
    rig.app.server.once('checkContinue', (request) => {
      seen = request;
    });
    client.head({ 'content-length': files.tensors.length, 'x-lora-config': config, expect: '100-continue' });
    expect(await client.continued()).toBe(true);
    expect(seen).not.toBe(null);
    client.send(files.tensors);
    expect((await client.reply())?.status).toBe(200);
    client.close();
  });
});

describe('what the API server is asked', () => {
  it('names the audience, the account and exactly one adapter', async () => {
    await put(rig, files);
    expect(rig.reviews.asked).toEqual([
      { kind: 'TokenReview', spec: { token: TOKENS.trainer, audiences: ['lorikeet-push'] } },
      {
        kind: 'SubjectAccessReview',
        spec: {
          user: 'system:serviceaccount:team-a:trainer',
          uid: 'u',
          groups: ['g'],
          extra: undefined,
          resourceAttributes: {
            group: 'lorikeet.dev',
            resource: 'loraadapters',
            subresource: 'tensors',
            namespace: 'team-a',
            name: 'sql',
            verb: 'update',
          },
        },
      },
    ]);
  });
});

describe('callers who say nothing', () => {
  it('leave room for one who pushes', async () => {
    await rig.close();
    rig = await startRig({ connectionsMax: 16 });
    const silent = Array.from({ length: 40 }, () => connect(rig.port, '127.0.0.1').on('error', () => {}));
    await Promise.all(silent.map((socket) => Promise.race([once(socket, 'connect'), once(socket, 'close')])));
    expect((await put(rig, files)).status).toBe(200);
    for (const socket of silent) socket.destroy();
  });
});
