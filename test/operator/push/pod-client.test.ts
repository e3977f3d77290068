import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Agent } from 'undici';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { systemClock } from '../../../operator/kube/clock.ts';
import { PodClient } from '../../../operator/pods/client.ts';
import type { Pod } from '../../../operator/pods/pod.ts';
import { TokenSource } from '../../../operator/pods/token.ts';
import type { StageReceipt } from '../../../server/contract/adapter-api.ts';
import { revisionDigest } from '../../../server/contract/digest.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { bigAdapter, digestOf } from './adapters.ts';
import { put, type Rig, startRig } from './harness.ts';

/** Pods on real sockets behind the operator's real client. */
let rig: Rig;
let agent: Agent;
const servers: Server[] = [];

beforeEach(async () => {
  rig = await startRig();
  agent = new Agent();
});
afterEach(async () => {
  await rig.close();
  await agent.destroy();
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

async function pod(name: string, handler: Handler): Promise<Pod> {
  const server = createServer(handler).listen(0, '127.0.0.1');
  servers.push(server);
  await new Promise((resolve) => server.once('listening', resolve));
  const adminUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const token = new TokenSource(async () => 'admin-token', systemClock);
  const client = new PodClient({ adminUrl, dispatcher: agent, token, life: new AbortController().signal });
  return { name, client, state: null } as unknown as Pod;
}

const seen: { url: string; headers: IncomingMessage['headers'] }[] = [];

const takesAll: Handler = async (request, response) => {
  seen.push({ url: `${request.method} ${request.url}`, headers: request.headers });
  const hash = createHash('sha256');
  try {
    for await (const chunk of request) hash.update(chunk as Buffer);
  } catch {
    return; // The client went away, and with it whoever would read an answer.
  }
  const config = JSON.parse(Buffer.from(String(request.headers['x-lora-config']), 'base64url').toString());
  const report: StageReceipt = {
    modules: 1,
    targetModules: [],
    layers: [],
    rank: 64,
    ranks: [64],
    dtypes: ['F32'],
    pages: 1,
    rounded: 0,
    warnings: [],
    timings: { receiveMs: 1, checkMs: 1, packMs: 1 },
  };
  const revision = revisionDigest(config, hash.digest('hex'));
  response.end(JSON.stringify({ name: 'sql-served', revision, step: 7, bytes: 1, existed: false, report }));
};
const readsNothing: Handler = () => undefined;
const hangsUp: Handler = (request) => {
  request.once('data', () => request.socket.destroy());
};
const refusesEarly: Handler = (request, response) => {
  request.once('data', () => {
    const error = new LorikeetError('no_capacity', 'no slot');
    response.writeHead(503, { connection: 'close' }).end(JSON.stringify(error));
  });
};

it('a push goes through the real client, with every header that a pod needs', async () => {
  rig.publisher.pods = [await pod('pod-a', takesAll), await pod('pod-b', takesAll)] as never;
  seen.length = 0;
  const files = bigAdapter();
  const { status, body } = await put(rig, files, {
    headers: { 'x-lora-step': '7', 'x-lora-allow': 'zero_effect' },
  });
  expect([status, body.revision]).toEqual([200, digestOf(files)]);
  expect(seen.map(({ url }) => url)).toEqual(Array(2).fill('POST /lora/v1/adapters/sql-served/revisions'));
  expect(seen[0]?.headers).toMatchObject({
    authorization: 'Bearer admin-token',
    'content-length': String(files.tensors.length),
    'x-lora-step': '7',
    'x-lora-fence': '4.2',
    'x-lora-allow': 'zero_effect',
  });
});

it('pods that hang, hang up or refuse half-way cost a bounded time and no one else', async () => {
  rig.publisher.pods = [
    await pod('pod-a', takesAll),
    await pod('pod-b', readsNothing),
    await pod('pod-c', hangsUp),
    await pod('pod-d', refusesEarly),
  ] as never;
  const startedAt = performance.now();
  const { status } = await put(rig, bigAdapter());
  expect(status).toBe(202);
  expect(performance.now() - startedAt).toBeLessThan(6_000);
  const outcomes = rig.publisher.publications[0]?.staged.map(({ ok, error }) => (ok ? 'ok' : error?.code));
  expect(outcomes?.slice(0, 3)).toEqual(['ok', 'pod_failed', 'pod_failed']);
  expect(['no_capacity', 'pod_failed']).toContain(outcomes?.[3]);
});

it('no pod that is there: the trainer hears it', async () => {
  const gone = await pod('pod-a', takesAll);
  const [server] = servers.splice(0);
  await new Promise((resolve) => server?.close(resolve));
  rig.publisher.pods = [gone] as never;
  const { status, body } = await put(rig, bigAdapter());
  expect([status, body.error.code]).toEqual([502, 'pod_failed']);
});
