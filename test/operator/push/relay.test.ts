import { Agent } from 'undici';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../../operator/kube/clock.ts';
import { PodClient } from '../../../operator/pods/client.ts';
import { TokenSource } from '../../../operator/pods/token.ts';
import { chainsOf } from '../../../operator/push/branch.ts';
import { digestOf } from '../../support/adapter-files.ts';
import { FakePod } from '../../support/pod/fake-pod.ts';
import { refusal } from '../../support/pod/fault.ts';
import { type CallFault, POD_TOKEN, ScriptedPod } from '../../support/pod/scripted-pod.ts';
import { podState } from '../../support/pod/state.ts';
import { bigAdapter } from './adapters.ts';
import { put, type Rig, startRig } from './harness.ts';

/** Pods on real sockets, enough of them to pass bodies on to each other. */
let rig: Rig;
let agent: Agent;
let servers: ScriptedPod[] = [];
const files = bigAdapter();
const whole = digestOf(files);

beforeEach(async () => {
  rig = await startRig({}, { relayFrom: 3 });
  agent = new Agent();
});
afterEach(async () => {
  await rig.close();
  await agent.destroy();
  await Promise.all(servers.splice(0).map((server) => server.stop()));
});

async function pods(count: number): Promise<void> {
  const relayLimits = { stallMs: 800, lateMs: 800, hopMs: 200 };
  const token = new TokenSource(async () => ({ token: POD_TOKEN, previous: null }), systemClock);
  const life = new AbortController().signal;
  servers = [];
  for (let at = 1; at <= count; at += 1) {
    const port = servers[0]?.port ?? 0;
    servers.push(await ScriptedPod.start({ host: `127.0.5.${at}`, port, relayLimits }));
  }
  rig.publisher.pods = servers.map((server, at) => {
    const client = new PodClient({ adminUrl: server.url, dispatcher: agent, token, life });
    return new FakePod({ name: `pod-${at}`, client });
  });
}

const staged = () =>
  rig.publisher.publications[0]?.staged.map(({ pod, error }) => `${pod.name} ${error?.code ?? 'ok'}`).sort();
const holders = () => servers.filter(({ registry }) => registry.state().adapters.length > 0).length;
const uploads = () => servers.map((server) => server.count('upload'));
/** Those that came from the operator itself: the others came from a pod. */
const direct = () =>
  rig.logs.filter(({ message }) => message === 'a push goes once more to pods that were passed over').length;

describe('a push to many pods', () => {
  it('goes to the first, and from pod to pod to all', async () => {
    await pods(5);
    const { status, body } = await put(rig, files);
    expect([status, body.revision, holders(), uploads(), direct()]).toEqual([
      200,
      whole,
      5,
      [1, 1, 1, 1, 1],
      0,
    ]);
    const behind = servers.map(({ calls }) =>
      `${calls[0]?.headers['x-lora-relay'] ?? ''}`.split(',').filter(Boolean),
    );
    expect(behind.map(({ length }) => length)).toEqual([4, 3, 2, 1, 0]);
  });

  it('goes to each by itself where they are few', async () => {
    await pods(2);
    expect((await put(rig, files)).status).toBe(200);
    expect(servers.map(({ calls }) => calls[0]?.headers['x-lora-relay'])).toEqual([undefined, undefined]);
  });

  it.each<[string, number, CallFault]>([
    ['dies in the middle of it', 2, { kind: 'reset', afterBytes: 1_000_000 }],
    ['dies as the first of them', 0, { kind: 'reset', afterBytes: 1_000_000 }],
    ['hangs', 2, { kind: 'hang' }],
    ['hangs as the first of them', 0, { kind: 'hang' }],
    ['does not answer at its end', 1, { kind: 'hang', afterBytes: Number.POSITIVE_INFINITY }],
    ['has no room', 1, { ...refusal('no_capacity'), afterBytes: 1 }],
  ])('one that %s is dropped, those behind it get the push from the spool', async (_, at, fault) => {
    await pods(5);
    servers[at]?.fail('upload', fault, 9);
    const { status } = await put(rig, files);
    const others = [0, 1, 2, 3, 4].filter((other) => other !== at).map((other) => `pod-${other} ok`);
    expect([status, staged()?.filter((line) => line.endsWith('ok')), holders()]).toEqual([202, others, 4]);
    expect(uploads()).toEqual(
      [0, 1, 2, 3, 4].map((other) => (other < at || at === other ? 1 : expect.any(Number))),
    );
  });

  it('two that die cost the others nothing', async () => {
    await pods(6);
    for (const at of [1, 3]) servers[at]?.fail('upload', { kind: 'reset', afterBytes: 1_000_000 }, 9);
    expect([(await put(rig, files)).status, holders()]).toEqual([202, 4]);
  });

  it('with another digest than promised is in none', async () => {
    await pods(3);
    const headers = { 'content-digest': `sha-256=:${Buffer.alloc(32).toString('base64')}:` };
    const { status, body } = await put(rig, files, { headers });
    expect([status, body.error.code, holders()]).toEqual([400, 'digest_mismatch', 0]);
    expect(rig.publisher.publications).toEqual([]);
  });

  it('whose content the first refuses is refused, and read no further', async () => {
    await pods(3);
    for (const server of servers) server.fail('upload', { ...refusal('non_finite'), afterBytes: 1 }, 9);
    const { status, body } = await put(rig, files);
    expect([status, body.error.code, holders(), direct()]).toEqual([422, 'non_finite', 0, 0]);
  });

  it('of which the spool has no copy leaves those behind for later, and blames only who fell out', async () => {
    await pods(4);
    rig.spool.open = () => null;
    servers[1]?.fail('upload', { kind: 'reset', afterBytes: 1_000_000 }, 9);
    expect((await put(rig, files)).status).toBe(202);
    expect(staged()).toEqual(['pod-0 ok', 'pod-1 pod_failed', 'pod-2 timeout', 'pod-3 timeout']);
  });
});

describe('chains', () => {
  const named = (scheme: string, relays?: boolean) =>
    Array.from({ length: 4 }, (_, at) => {
      const pod = new FakePod({ name: `pod-${at}` });
      const state = podState(relays === undefined ? {} : { relays });
      return Object.assign(pod, { state, adminUrl: `${scheme}://10.0.0.${at}:8001` });
    });

  it('are made of pods that speak plain HTTP, from so many on', () => {
    expect(chainsOf(named('http'), 4)).toHaveLength(1);
    expect(chainsOf(named('http'), 5)).toHaveLength(4);
  });

  it('are made of pods that speak TLS where they say that they pass bodies on', () => {
    expect(chainsOf(named('https', true), 4)).toHaveLength(1);
    expect(chainsOf(named('https', false), 4)).toHaveLength(4);
    expect(chainsOf(named('https'), 4)).toHaveLength(4);
  });
});
