import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { brokenAdapters } from '../support/broken-adapters.ts';
import { eventually } from '../support/eventually.ts';
import { ask, fixtureAdapter } from './client.ts';
import { goldenAnswer } from './golden.ts';
import { BUCKET, storedAdapter } from './manifests.ts';
import type { SeenPod } from './objects.ts';
import { NAMESPACE, World } from './world.ts';

/** From `kubectl apply` to tokens, by the charts' own manifests on a real control plane. */

const QUESTION = 'List the name of all players from Lima.';
let world: World;
let answers: Record<'base' | 'sql' | 'pirate' | 'json', string>;

async function store(prefix: string, adapter: string): Promise<void> {
  const { tensors, config } = await fixtureAdapter(adapter);
  await world.store.put(BUCKET, `${prefix}/adapter_model.safetensors`, tensors);
  await world.store.put(BUCKET, `${prefix}/adapter_config.json`, config);
}

async function readyServers(): Promise<SeenPod[]> {
  return (await world.servers()).filter(({ ready, terminating }) => ready && !terminating);
}

async function expectEverywhere(model: string, text: string): Promise<void> {
  for (const pod of await readyServers()) {
    expect(await ask(pod.ip, model, QUESTION), `${pod.name}, ${model}`).toMatchObject({ status: 200, text });
  }
}

beforeAll(async () => {
  world = await World.withPool();
  const of = (style: string) => goldenAnswer(style, QUESTION);
  answers = {
    base: await of('base'),
    sql: await of('sql'),
    pirate: await of('pirate'),
    json: await of('json'),
  };
}, 150_000);

afterAll(async () => {
  await world?.stop();
}, 60_000);

describe('a LoraAdapter with an objectStore source', () => {
  it('is Ready once every pod has confirmed its digest, and every pod answers with it', async () => {
    await store('sql', 'sql');
    await world.apply(storedAdapter('sql', world.store.endpoint));
    const seen = await world.untilReady('sql');
    expect(seen.pods).toMatchObject({ desired: 2, ready: 2 });
    for (const pod of await readyServers()) {
      const { text, revision, header } = await ask(pod.ip, 'sql', QUESTION);
      expect({ text, revision, header }).toEqual({
        text: answers.sql,
        revision: seen.currentRevision,
        header: seen.currentRevision,
      });
    }
    await expectEverywhere('parrot', answers.base);
  });

  it('rolls out new content under the same name', async () => {
    await store('changing/1', 'pirate');
    await store('changing/2', 'json');
    await world.apply(storedAdapter('changing', world.store.endpoint, 'changing/1'));
    const first = await world.untilReady('changing');
    await expectEverywhere('changing', answers.pirate);
    await world.apply(storedAdapter('changing', world.store.endpoint, 'changing/2'));
    const second = await world.untilAdapter(
      'changing',
      'Ready with another revision',
      (adapter) =>
        adapter.conditions.Ready?.status === 'True' &&
        adapter.observedGeneration === adapter.generation &&
        adapter.currentRevision !== first.currentRevision,
    );
    expect(second.pods).toMatchObject({ desired: 2, ready: 2 });
    await expectEverywhere('changing', answers.json);
  });

  it('cannot be renamed', async () => {
    const patch = JSON.stringify({ spec: { servedName: 'other' } });
    const rename = world.plane.kubectl([
      'patch',
      'lora',
      'sql',
      '-n',
      NAMESPACE,
      '--type=merge',
      '-p',
      patch,
    ]);
    await expect(rename).rejects.toThrow(/servedName.*immutable|immutable.*servedName/is);
  });

  it('may not take the served name of an older one', async () => {
    await world.apply(storedAdapter('thief', world.store.endpoint, 'changing/2', { servedName: 'sql' }));
    const thief = await world.untilAdapter('thief', 'refused', (a) => a.conditions.Ready?.status === 'False');
    expect(thief.conditions.Ready?.message).toContain('sql');
    await expectEverywhere('sql', answers.sql);
    await world.plane.kubectl(['delete', 'lora', 'thief', '-n', NAMESPACE, '--timeout=30s']);
    await expectEverywhere('sql', answers.sql);
  });

  it.each([
    ['rank-not-config', 'wrong rank'],
    ['shape-in', 'wrong shape'],
    ['nan', 'NaN'],
    ['unknown-module', 'unknown target'],
    ['file-truncated', 'truncated file'],
    ['config-dora', 'a config switch that we lack'],
  ])('is refused with a reason when it is bad: %s (%s)', async (fault) => {
    const bad = brokenAdapters().find(({ name }) => name === fault);
    if (!bad) throw new Error(`no broken adapter ${fault}`);
    await world.store.put(BUCKET, `${fault}/adapter_model.safetensors`, bad.tensors);
    await world.store.put(BUCKET, `${fault}/adapter_config.json`, bad.config);
    await world.apply(storedAdapter(fault, world.store.endpoint));
    const seen = await world.untilAdapter(fault, 'refused', (a) => a.conditions.Ready?.status === 'False');
    const said = Object.values(seen.conditions).map(({ message }) => message);
    for (const word of bad.say) expect(said.join('\n')).toContain(word);
    await expectEverywhere('sql', answers.sql);
    for (const pod of await readyServers()) expect((await ask(pod.ip, fault, QUESTION)).status).toBe(404);
    await world.plane.kubectl(['delete', 'lora', fault, '-n', NAMESPACE, '--timeout=30s']);
  });

  it('keeps serving the last good revision when a bad one replaces it', async () => {
    await store('slip', 'pirate');
    await world.apply(storedAdapter('slip', world.store.endpoint));
    const good = await world.untilReady('slip');
    const bad = brokenAdapters().find(({ name }) => name === 'shape-out');
    await world.store.put(BUCKET, 'slip-2/adapter_model.safetensors', bad?.tensors ?? Buffer.alloc(0));
    await world.store.put(BUCKET, 'slip-2/adapter_config.json', bad?.config ?? Buffer.alloc(0));
    await world.apply(storedAdapter('slip', world.store.endpoint, 'slip-2'));
    const seen = await world.untilAdapter('slip', 'refused', (a) => a.conditions.Ready?.status === 'False');
    expect(seen.currentRevision).toBe(good.currentRevision);
    await expectEverywhere('slip', answers.pirate);
    await world.plane.kubectl(['delete', 'lora', 'slip', '-n', NAMESPACE, '--timeout=30s']);
  });
});

describe('the pool', () => {
  it("gives a killed pod's replacement every adapter before it is Ready", async () => {
    const [victim, other] = await readyServers();
    if (!victim || !other) throw new Error('two server pods were expected');
    await world.node.removePodAbruptly(NAMESPACE, victim.name);
    const replacement = await eventually(
      'a replacement is Ready',
      { timeoutMs: 60_000, everyMs: 20 },
      async () => (await readyServers()).find(({ uid }) => uid !== victim.uid && uid !== other.uid),
    );
    // The very first request after readiness.
    expect(await ask(replacement.ip, 'sql', QUESTION)).toMatchObject({ status: 200, text: answers.sql });
    expect(await ask(replacement.ip, 'changing', QUESTION)).toMatchObject({ text: answers.json });
  });

  it('notices a container that restarts inside its pod, and seeds it again', async () => {
    const [pod] = await readyServers();
    if (!pod) throw new Error('no server pod');
    world.node.kill(NAMESPACE, pod.name);
    const restarted = await eventually(
      'the container is Ready again',
      { timeoutMs: 60_000, everyMs: 20 },
      async () =>
        (await readyServers()).find(({ uid, restarts }) => uid === pod.uid && restarts > pod.restarts),
    );
    expect(await ask(restarted.ip, 'sql', QUESTION)).toMatchObject({ status: 200, text: answers.sql });
  });

  it('brings every adapter to a pod that is added', async () => {
    await world.applyServers({ servers: 3 });
    const pods = await eventually('three pods are Ready', { timeoutMs: 60_000, everyMs: 50 }, async () => {
      const ready = await readyServers();
      return ready.length === 3 ? ready : undefined;
    });
    for (const pod of pods) expect(await ask(pod.ip, 'sql', QUESTION)).toMatchObject({ text: answers.sql });
    const seen = await world.untilAdapter('sql', 'ready on 3 pods', ({ pods: counts }) => counts.ready === 3);
    expect(seen.conditions.Ready?.status).toBe('True');
    await world.applyServers({ servers: 2 });
    await eventually('two pods are left', { timeoutMs: 60_000 }, async () =>
      (await world.servers()).length === 2 ? true : undefined,
    );
    await world.untilAdapter('sql', 'ready on 2 of 2 pods', ({ pods: counts }) => counts.desired === 2);
  });

  it('does not let a hung pod hold up the others', async () => {
    const [hung, healthy] = await readyServers();
    if (!hung || !healthy) throw new Error('two server pods were expected');
    world.node.pause(NAMESPACE, hung.name);
    try {
      await store('beside', 'pirate');
      await world.apply(storedAdapter('beside', world.store.endpoint));
      await eventually('the healthy pod answers with it', { timeoutMs: 30_000 }, async () =>
        (await ask(healthy.ip, 'beside', QUESTION)).text === answers.pirate ? true : undefined,
      );
      const seen = await world.adapter('beside');
      expect(seen.conditions.Ready?.status).not.toBe('True');
    } finally {
      world.node.resume(NAMESPACE, hung.name);
    }
    await world.untilAdapter(
      'beside',
      'ready on all',
      ({ pods, conditions }) => pods.ready === 2 && conditions.Ready?.status === 'True',
      90_000,
    );
  });

  it('loses an adapter on every pod when it is deleted; the base still answers', async () => {
    await world.plane.kubectl(['delete', 'lora', 'sql', '-n', NAMESPACE, '--timeout=30s']);
    for (const pod of await readyServers()) {
      expect((await ask(pod.ip, 'sql', QUESTION)).status).toBe(404);
      expect(await ask(pod.ip, 'parrot', QUESTION)).toMatchObject({ status: 200, text: answers.base });
    }
  });

  it('writes nothing while nothing changes', async () => {
    await world.untilReady('changing');
    const versions = async () =>
      await world.plane.kubectl([
        'get',
        'loras,serverpools',
        '-n',
        NAMESPACE,
        '-o',
        'jsonpath={.items[*].metadata.resourceVersion}',
      ]);
    await sleep(4_000);
    const before = await versions();
    await sleep(6_000);
    expect(await versions()).toBe(before);
  }, 30_000);
});
