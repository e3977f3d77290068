import { Agent } from 'undici';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { systemClock } from '../../../operator/kube/clock.ts';
import { PodClient } from '../../../operator/pods/client.ts';
import { TokenSource } from '../../../operator/pods/token.ts';
import { digestOf } from '../../support/adapter-files.ts';
import { FakePod } from '../../support/pod/fake-pod.ts';
import { type Fault, refusal } from '../../support/pod/fault.ts';
import { POD_TOKEN, ScriptedPod } from '../../support/pod/scripted-pod.ts';
import { bigAdapter } from './adapters.ts';
import { put, type Rig, startRig } from './harness.ts';

/** Pods on real sockets behind the operator's real client. */
let rig: Rig;
let agent: Agent;
const servers: ScriptedPod[] = [];

beforeEach(async () => {
  rig = await startRig();
  agent = new Agent();
});
afterEach(async () => {
  await rig.close();
  await agent.destroy();
  await Promise.all(servers.splice(0).map((server) => server.stop()));
});

async function pod(name: string, fault?: Fault): Promise<FakePod> {
  const server = await ScriptedPod.start({ host: '127.0.0.1' });
  servers.push(server);
  if (fault) server.fail('upload', fault);
  const token = new TokenSource(async () => ({ token: POD_TOKEN, previous: null }), systemClock);
  const life = new AbortController().signal;
  const client = new PodClient({ adminUrl: server.url, dispatcher: agent, token, life });
  return new FakePod({ name, client });
}

it('a push goes through the real client, with every header that a pod needs', async () => {
  rig.publisher.pods = [await pod('pod-a'), await pod('pod-b')];
  const files = bigAdapter();
  const { status, body } = await put(rig, files, {
    headers: { 'x-lora-step': '7', 'x-lora-allow': 'zero_effect' },
  });
  expect([status, body.revision]).toEqual([200, digestOf(files)]);
  const calls = servers.flatMap((server) => server.calls);
  expect(calls.map(({ line }) => line)).toEqual(Array(2).fill('POST /lora/v1/adapters/sql-served/revisions'));
  expect(calls[0]?.headers).toMatchObject({
    authorization: `Bearer ${POD_TOKEN}`,
    'content-length': String(files.tensors.length),
    'x-lora-step': '7',
    'x-lora-fence': '4.2',
    'x-lora-allow': 'zero_effect',
  });
});

it('pods that hang, hang up or refuse half-way cost a bounded time and no one else', async () => {
  rig.publisher.pods = [
    await pod('pod-a'),
    await pod('pod-b', { kind: 'hang' }),
    await pod('pod-c', { kind: 'reset', afterBytes: 1 }),
    await pod('pod-d', { ...refusal('no_capacity'), afterBytes: 1 }),
  ];
  const startedAt = performance.now();
  const { status } = await put(rig, bigAdapter());
  expect(status).toBe(202);
  expect(performance.now() - startedAt).toBeLessThan(6_000);
  const outcomes = rig.publisher.publications[0]?.staged.map(({ ok, error }) => (ok ? 'ok' : error?.code));
  expect(outcomes?.slice(0, 3)).toEqual(['ok', 'pod_failed', 'pod_failed']);
  expect(['no_capacity', 'pod_failed']).toContain(outcomes?.[3]);
});

it('no pod that is there: the trainer hears it', async () => {
  const gone = await pod('pod-a');
  await servers[0]?.stop();
  rig.publisher.pods = [gone];
  const { status, body } = await put(rig, bigAdapter());
  expect([status, body.error.code]).toEqual([502, 'pod_failed']);
});
