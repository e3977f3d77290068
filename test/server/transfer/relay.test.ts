import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { Agent, request } from 'undici';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { RelayedPod } from '../../../server/contract/adapter-api.ts';
import { Relay } from '../../../server/transfer/relay.ts';
import { bigAdapter, configHeader } from '../../operator/push/adapters.ts';
import { digestOf } from '../../support/adapter-files.ts';
import { eventually } from '../../support/eventually.ts';
import { refusal } from '../../support/pod/fault.ts';
import { POD_TOKEN, ScriptedPod } from '../../support/pod/scripted-pod.ts';

const PATH = '/lora/v1/adapters/sql/revisions';
const FAST = { stallMs: 800, lateMs: 800, hopMs: 200 };
const files = bigAdapter();
const whole = digestOf(files);

let pods: ScriptedPod[] = [];
let agent: Agent;
beforeEach(() => {
  agent = new Agent();
});
afterEach(async () => {
  await Promise.all(pods.splice(0).map((pod) => pod.stop()));
  await agent.destroy();
});

/** Pods of one pool: addresses of their own, and one port. */
async function start(count: number): Promise<ScriptedPod[]> {
  const first = await ScriptedPod.start({ host: '127.0.3.1', relayLimits: FAST });
  pods = [first];
  for (let at = 2; at <= count; at += 1) {
    pods.push(await ScriptedPod.start({ host: `127.0.3.${at}`, port: first.port, relayLimits: FAST }));
  }
  return pods;
}

function headersFor(behind: readonly { url: string }[]): Record<string, string> {
  return {
    authorization: `Bearer ${POD_TOKEN}`,
    'x-lora-config': configHeader(files.config),
    'x-lora-fence': '3.7',
    'x-lora-step': '12',
    'content-length': String(files.tensors.length),
    ...(behind.length > 0 && { 'x-lora-relay': behind.map(({ url }) => url).join(',') }),
  };
}

interface Answer {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: replies and refusals.
  body: any;
}

async function upload([first, ...behind]: ScriptedPod[], body: Buffer = files.tensors): Promise<Answer> {
  const headers = headersFor(behind);
  const options = { method: 'POST', headers, body, dispatcher: agent } as const;
  const response = await request(`${first?.url}${PATH}`, options);
  return { status: response.statusCode, body: await response.body.json() };
}

const holds = (pod: ScriptedPod | undefined) =>
  pod?.registry.state().adapters.flatMap(({ revisions }) => revisions.map(({ digest }) => digest));
const statesOf = ({ body }: Answer) =>
  (body.relayed as RelayedPod[]).map(({ state, error }) =>
    error === null ? state : `${state} ${error.code}`,
  );

describe('a body that is relayed', () => {
  it('is in every pod, with all that was said of it, and the answer speaks for each', async () => {
    const [, b, c] = await start(3);
    const answer = await upload(pods);
    expect([answer.status, answer.body.revision, answer.body.relayed]).toEqual([
      200,
      whole,
      [b, c].map((pod) => ({ url: pod?.url, state: 'staged', revision: whole, error: null })),
    ]);
    expect(pods.map(holds)).toEqual([[whole], [whole], [whole]]);
    expect(pods.map(({ registry }) => registry.state().adapters[0]?.revisions[0]?.step)).toEqual([
      12, 12, 12,
    ]);
    const relays = pods.map(({ calls }) => calls[0]?.headers['x-lora-relay']);
    expect(relays).toEqual([`${b?.url},${c?.url}`, c?.url, undefined]);
    expect(calls(c, 'x-lora-fence')).toEqual(['3.7']);
  });

  it('that is cut off is whole nowhere', async () => {
    await start(3);
    const [a, ...behind] = pods;
    const socket = connect(a?.port ?? 0, a?.host);
    const head = Object.entries(headersFor(behind)).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.write(`POST ${PATH} HTTP/1.1\r\nhost: a\r\n${head.join('')}\r\n`);
    socket.write(files.tensors.subarray(0, -1));
    // It has come through to the last pod.
    await eventually(
      'the last pod is called',
      { timeoutMs: 5_000 },
      async () => pods[2]?.count('upload') || undefined,
    );
    socket.destroy();
    await eventually(
      'the pods have given it up',
      { timeoutMs: 5_000 },
      async () => pods.every(({ registry }) => registry.state().used.hostBytes === 0) || undefined,
    );
    expect(pods.map(holds)).toEqual([[], [], []]);
  });

  it('goes past a pod that dies in the middle of it only to those before', async () => {
    await start(3);
    pods[1]?.fail('upload', { kind: 'reset', afterBytes: 1_000_000 });
    const answer = await upload(pods);
    expect([answer.status, statesOf(answer)]).toEqual([200, ['failed pod_failed', 'skipped']]);
    expect(pods.map(holds)).toEqual([[whole], [], []]);
  });

  it('is refused by one pod in its own words', async () => {
    await start(3);
    pods[1]?.fail('upload', { ...refusal('no_capacity'), afterBytes: 1 });
    const answer = await upload(pods);
    expect([answer.status, statesOf(answer)[1]]).toEqual([200, 'skipped']);
    expect(['failed no_capacity', 'failed pod_failed']).toContain(statesOf(answer)[0]);
    expect(pods.map(holds)).toEqual([[whole], [], []]);
  });

  it('waits for a pod that takes nothing no longer than the stall limit, and its first pod not at all', async () => {
    await start(4);
    pods[2]?.fail('upload', { kind: 'hang' });
    const answer = await upload(pods);
    expect([answer.status, statesOf(answer)]).toEqual([200, ['staged', 'failed pod_failed', 'skipped']]);
    expect(pods.map(holds)).toEqual([[whole], [whole], [], []]);
  });

  it('is not passed on where the first pod refuses it', async () => {
    await start(2);
    const wrong = Buffer.from(files.tensors);
    wrong.write('!!', 8);
    const answer = await upload(pods, wrong);
    expect([answer.status, answer.body.error.code]).toEqual([400, 'malformed_safetensors']);
    expect(pods.map(holds)).toEqual([[], []]);
  });
});

describe('a relay', () => {
  it('keeps no bytes of its own for a pod that takes none, and drops it', async () => {
    // It accepts connections and never reads from them.
    const silent = createServer({ pauseOnConnect: true }).listen(0, '127.0.3.9');
    await once(silent, 'listening');
    const url = `http://127.0.3.9:${(silent.address() as AddressInfo).port}`;
    const bytes = Buffer.alloc(256 << 20);
    const before = process.memoryUsage().arrayBuffers;
    const options = { urls: [url], path: PATH, headers: {}, bytes: bytes.length, dispatcher: agent };
    const relay = new Relay({ ...options, limits: { ...FAST, lateMs: 60_000 } });
    for (let filled = 0; filled <= bytes.length; filled += 1 << 20) {
      relay.advance({ bytes, filled });
      if (filled % (16 << 20) === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    const [outcome] = await relay.outcome();
    expect(outcome).toMatchObject({
      url,
      state: 'failed',
      error: { message: 'The pod took no byte for 800 ms' },
    });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 << 20);
    silent.close();
  });
});

describe('where a pod is told to pass a body on to', () => {
  const refused = async (relay: (port: number) => string, headers: Record<string, string> = {}) => {
    const [pod] = await start(1);
    const all = { ...headersFor([]), 'x-lora-relay': relay(pod?.port ?? 0), ...headers };
    const options = { method: 'POST', headers: all, body: files.tensors, dispatcher: agent } as const;
    const response = await request(`${pod?.url}${PATH}`, options);
    return [response.statusCode, ((await response.body.json()) as Answer['body']).error?.code];
  };

  it.each<[string, (port: number) => string]>([
    ['another port', (port) => `http://127.0.3.2:${port + 1}`],
    ['a name', (port) => `http://localhost:${port}`],
    ['a path', (port) => `http://127.0.3.2:${port}/x`],
    ['an account', (port) => `http://a:b@127.0.3.2:${port}`],
    ['another protocol', (port) => `ftp://127.0.3.2:${port}`],
    ['the metadata of a cloud', (port) => `http://169.254.169.254:${port}`],
    ['the same in IPv6', (port) => `http://[::ffff:169.254.169.254]:${port}`],
    ['no host', (port) => `http://0.0.0.0:${port}`],
    ['the same pod twice', (port) => `http://127.0.3.2:${port},http://127.0.3.2:${port}`],
    [
      'more than may be',
      (port) => Array.from({ length: 129 }, (_, at) => `http://127.0.4.${at}:${port}`).join(),
    ],
    ['nothing', () => ''],
  ])('%s is refused', async (_, relay) => {
    expect(await refused(relay)).toEqual([400, 'malformed_request']);
  });

  it('a stranger is refused before the address is looked at', async () => {
    expect(await refused(() => 'x', { authorization: 'Bearer other' })).toEqual([401, 'unauthenticated']);
  });
});

function calls(pod: ScriptedPod | undefined, header: string): unknown[] {
  return pod?.calls.map(({ headers }) => headers[header]) ?? [];
}
