import { createServer, type Server } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { digestOf, goodAdapter } from '../../support/adapter-files.ts';
import { bigAdapter, configHeader } from './adapters.ts';
import { TOKENS } from './fake-reviews.ts';
import { FAST, put, type Rig, startRig, until } from './harness.ts';
import { RawClient } from './raw-client.ts';

let leader: Rig;
let follower: Rig;
const files = goodAdapter();

beforeEach(async () => {
  [leader, follower] = await Promise.all([startRig(), startRig()]);
  pointTo(`http://127.0.0.1:${leader.port}`);
});
afterEach(() => Promise.all([leader.close(), follower.close()]));

function pointTo(address: string | null): void {
  const annotations: Record<string, string> =
    address === null ? {} : { 'lorikeet.dev/push-address': address };
  follower.leader.leading = null;
  follower.leader.holder = () => ({ identity: 'operator-0', annotations });
}

describe('an operator that does not lead', () => {
  it('sends a push on to the leader and its reply back', async () => {
    const big = bigAdapter();
    const { status, headers, body } = await put(follower, big, {
      headers: { 'x-lora-step': '3' },
      query: '?wait=staged',
    });
    expect([status, headers['content-type'], body.revision, body.step]).toEqual([
      200,
      'application/json; charset=utf-8',
      digestOf(big),
      3,
    ]);
    expect(leader.publisher.publications[0]).toMatchObject({
      wait: 'staged',
      pushedBy: 'system:serviceaccount:team-a:trainer',
    });
    expect([follower.publisher.publications, follower.spool.list()]).toEqual([[], []]);
  });

  it('does so for a chunked body, for an address without a scheme, and for the list', async () => {
    pointTo(`127.0.0.1:${leader.port}`);
    const client = new RawClient(follower.port);
    client.head({ 'transfer-encoding': 'chunked', 'x-lora-config': configHeader(files.config) });
    client.send(`${files.tensors.length.toString(16)}\r\n`);
    client.send(files.tensors);
    client.send('\r\n0\r\n\r\n');
    expect((await client.reply())?.body.revision).toBe(digestOf(files));
    client.head({}, { method: 'GET' });
    expect((await client.reply())?.body.desired).toEqual({ digest: digestOf(files), step: null });
    client.close();
  });

  it('asks the leader before it asks the trainer for the body', async () => {
    leader.publisher.error = new LorikeetError('not_push_source', 'no');
    const client = new RawClient(follower.port);
    client.head({ 'content-length': 100_000, expect: '100-continue' });
    const reply = await client.reply();
    expect([reply?.status, reply?.body.error.code, reply?.headers.connection]).toEqual([
      409,
      'not_push_source',
      'close',
    ]);
    leader.publisher.error = null;
    const allowed = new RawClient(follower.port);
    allowed.head({
      'content-length': files.tensors.length,
      'x-lora-config': configHeader(files.config),
      expect: '100-continue',
    });
    expect(await allowed.continued()).toBe(true);
    allowed.send(files.tensors);
    expect((await allowed.reply())?.status).toBe(200);
    allowed.close();
  });

  it('hands a refusal back while the trainer still sends', async () => {
    leader.publisher.maxRank = 16;
    const { tensors, config } = bigAdapter();
    const client = new RawClient(follower.port);
    client.head({ 'content-length': tensors.length, 'x-lora-config': configHeader(config) });
    client.send(tensors.subarray(0, 100_000));
    const reply = await client.reply();
    expect([reply?.status, reply?.body.error.code]).toEqual([422, 'rank_too_large']);
    client.close();
  });

  it('cuts the leader off when the trainer goes away', async () => {
    const { tensors, config } = bigAdapter();
    const client = new RawClient(follower.port);
    client.head({ 'content-length': tensors.length, 'x-lora-config': configHeader(config) });
    client.send(tensors.subarray(0, 1_000_000));
    await until(() => leader.inFlight[0] === 1 && (leader.publisher.pods[0]?.receivedBytes ?? 0) > 100_000);
    client.close();
    await until(() => leader.inFlight[0] === 0);
    expect([leader.counted, leader.publisher.publications]).toEqual([['client_gone'], []]);
    await until(() => follower.counted.includes('client_gone'));
  });

  it('lets no stranger through', async () => {
    const client = new RawClient(follower.port);
    client.head({ authorization: `Bearer ${TOKENS.expired}`, 'content-length': 10 });
    expect((await client.reply())?.status).toBe(401);
    expect(leader.reviews.asked).toEqual([]);
    client.close();
  });

  it.each([
    ['nobody leads', () => pointTo(null)],
    ['the leader is not known', () => (follower.leader.holder = () => null)],
    ['its address is none', () => pointTo('http://')],
    ['nobody listens there', async () => pointTo(`http://127.0.0.1:${await closedPort()}`)],
    ['the leader no longer leads', () => (leader.leader.leading = null)],
    ['the lease names itself', () => pointTo(`http://127.0.0.1:${follower.port}`)],
  ])('says not_leader and to come back when %s', async (_, arrange) => {
    await arrange();
    const { status, headers, body } = await put(follower, files);
    expect([status, body.error.code, headers['retry-after']]).toEqual([503, 'not_leader', '1']);
  });

  it('does not send round in circles what comes back to it', async () => {
    pointTo(`http://127.0.0.1:${follower.port}`);
    let connections = 0;
    follower.app.server.on('connection', () => {
      connections += 1;
    });
    await put(follower, files);
    expect(connections).toBe(2);
  });

  it('gives a leader up that is stopped, before and after it asked for the body', async () => {
    for (const answer of [() => undefined, askForMore]) {
      const server: Server = createServer(answer).listen(0, '127.0.0.1');
      server.on('checkContinue', answer);
      await new Promise((resolve) => server.once('listening', resolve));
      pointTo(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
      const { status, headers, body } = await put(follower, files);
      expect([status, body.error.code, headers['retry-after']]).toEqual([503, 'not_leader', '1']);
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  });

  it('waits for a leader that says it lives for as long as the push takes', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    leader.publisher.gate = promise;
    const pushed = put(follower, files);
    const silent = new Promise((done) => setTimeout(done, 2 * (FAST.forward?.silenceMs ?? 0)));
    expect(await Promise.race([pushed, silent])).toBeUndefined();
    resolve();
    expect((await pushed).status).toBe(200);
  });

  it('gives a leader up that answers something endless or cuts the line', async () => {
    for (const answer of [endless, hangUp]) {
      const server: Server = createServer(answer).listen(0, '127.0.0.1');
      server.on('checkContinue', answer);
      await new Promise((resolve) => server.once('listening', resolve));
      pointTo(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
      const { status, body } = await put(follower, files);
      expect([status, body.error.code]).toEqual([503, 'not_leader']);
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  });
});

function endless(_request: unknown, response: import('node:http').ServerResponse): void {
  response.writeHead(200);
  const block = Buffer.alloc(300_000);
  const more = () => {
    while (response.write(block));
  };
  response.on('drain', more).on('error', () => undefined);
  more();
}

function askForMore(_request: unknown, response: import('node:http').ServerResponse): void {
  response.writeContinue();
}

function hangUp(_request: unknown, response: import('node:http').ServerResponse): void {
  response.socket?.destroy();
}

async function closedPort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
