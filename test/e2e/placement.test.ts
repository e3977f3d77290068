import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { ask, fixtureAdapter, pushed, pushUrl } from './client.ts';
import { goldenAnswer } from './golden.ts';
import { BUCKET, pushedAdapter, storedAdapter } from './manifests.ts';
import type { SeenPod } from './objects.ts';
import { NAMESPACE, SYSTEM, World } from './world.ts';

/** Adapters on some pods of a pool: which answer, and which do not, by real servers on a real control plane. */

const QUESTION = 'List the name of all players from Lima.';
let world: World;
let token: string;
let sql: string;
let pirate: string;

beforeAll(async () => {
  world = await World.withPool();
  token = await world.tokenFor('trainer', 'lorikeet-push');
  await world.allowPush('trainer');
  [sql, pirate] = await Promise.all([goldenAnswer('sql', QUESTION), goldenAnswer('pirate', QUESTION)]);
  const { tensors, config } = await fixtureAdapter('sql');
  await world.store.put(BUCKET, 'sql/adapter_model.safetensors', tensors);
  await world.store.put(BUCKET, 'sql/adapter_config.json', config);
}, 150_000);

afterAll(async () => {
  await world?.stop();
}, 60_000);

const fixed = (replicas: number) => ({ placement: { mode: 'Fixed', replicas } });
const stored = (name: string, more: object) => storedAdapter(name, world.store.endpoint, 'sql', more);

async function readyServers(): Promise<SeenPod[]> {
  return (await world.servers()).filter(({ ready, terminating }) => ready && !terminating);
}

/** Pods that answer with the adapter, and as it says; the others must not know it. */
async function servers(model: string, text: string): Promise<SeenPod[]> {
  const there: SeenPod[] = [];
  for (const pod of await readyServers()) {
    const answer = await ask(pod.ip, model, QUESTION);
    expect([200, 404], `${pod.name}: ${answer.text}`).toContain(answer.status);
    if (answer.status === 200) expect(answer.text).toBe(text);
    if (answer.status === 200) there.push(pod);
  }
  return there;
}

/** Ready for the spec as it is now, on so many pods. */
async function untilOn(name: string, pods: number): Promise<void> {
  await world.untilAdapter(
    name,
    `Ready on ${pods} pods`,
    (adapter) =>
      adapter.conditions.Ready?.status === 'True' &&
      adapter.observedGeneration === adapter.generation &&
      adapter.pods.desired === pods &&
      adapter.pods.ready === pods,
    60_000,
  );
}

const untilServedBy = (name: string, text: string, pods: number) =>
  eventually(`${pods} pods answer with ${name}`, { timeoutMs: 60_000 }, async () => {
    const there = await servers(name, text);
    return there.length === pods ? there : undefined;
  });

const urlOf = async (name: string) => pushUrl((await world.operators())[0]?.ip ?? '', NAMESPACE, name);

describe('an adapter for one pod of two', () => {
  it('is answered by the pod that has it, and by both when it asks for two', async () => {
    await world.apply(stored('sql', fixed(1)));
    await untilOn('sql', 1);
    expect(await servers('sql', sql)).toHaveLength(1);
    await world.apply(stored('sql', fixed(2)));
    await untilOn('sql', 2);
    expect(await servers('sql', sql)).toHaveLength(2);
  });

  it('stays on one when it asks for one again, and no pod gives a wrong answer meanwhile', async () => {
    await world.apply(stored('sql', fixed(1)));
    const there = await untilServedBy('sql', sql, 1);
    expect(there).toHaveLength(1);
    await untilOn('sql', 1);
  });

  it('is answered by another when its pod dies, and does not keep the replacement from being Ready', async () => {
    const [holder] = await servers('sql', sql);
    if (holder === undefined) throw new Error('no pod has the adapter');
    const before = (await readyServers()).map(({ uid }) => uid);
    await world.node.removePodAbruptly(NAMESPACE, holder.name);
    const replacement = await eventually('a replacement is Ready', { timeoutMs: 60_000 }, async () =>
      (await readyServers()).find(({ uid }) => !before.includes(uid)),
    );
    await untilOn('sql', 1);
    const [heir] = await untilServedBy('sql', sql, 1);
    expect([...before, replacement.uid]).toContain(heir?.uid);
    expect(heir?.uid).not.toBe(holder.uid);
  });

  it('is pushed with a barrier while the pod that should not have it hangs', async () => {
    await world.apply(pushedAdapter('policy', { ...fixed(1), update: { consistency: 'Barrier' } }));
    await world.untilAdapter('policy', 'observed', ({ conditions }) => conditions.Ready !== undefined);
    const first = await pushed(await urlOf('policy'), await fixtureAdapter('sql'), { token, step: 1 });
    expect(first.pods).toHaveLength(1);
    const [holder] = await servers('policy', sql);
    const other = (await readyServers()).find(({ uid }) => uid !== holder?.uid);
    if (holder === undefined || other === undefined)
      throw new Error('two pods were expected, one with the adapter');
    world.node.pause(NAMESPACE, other.name);
    try {
      const second = await pushed(await urlOf('policy'), await fixtureAdapter('pirate'), { token, step: 2 });
      expect(second.pods).toMatchObject([{ name: holder.name, state: 'active' }]);
      expect((await ask(holder.ip, 'policy', QUESTION)).text).toBe(pirate);
    } finally {
      world.node.resume(NAMESPACE, other.name);
    }
    await world.apply(pushedAdapter('policy', { ...fixed(2), update: { consistency: 'Barrier' } }));
    await untilOn('policy', 2);
    expect(await servers('policy', pirate)).toHaveLength(2);
  });
});

describe('an adapter for no pod', () => {
  it('comes back with what was pushed, also to an operator that has started anew', async () => {
    await world.apply(pushedAdapter('resting', fixed(1)));
    await world.untilAdapter('resting', 'observed', ({ conditions }) => conditions.Ready !== undefined);
    const { revision } = await pushed(await urlOf('resting'), await fixtureAdapter('pirate'), {
      token,
      step: 1,
    });
    await world.apply(pushedAdapter('resting', fixed(0)));
    await untilServedBy('resting', pirate, 0);
    const [operator] = await world.operators();
    await world.node.removePodAbruptly(SYSTEM, operator?.name ?? '');
    await eventually('another operator is ready', { timeoutMs: 60_000 }, async () =>
      (await world.operators()).find(({ uid, ready }) => ready && uid !== operator?.uid),
    );
    await world.apply(pushedAdapter('resting', fixed(1)));
    await untilServedBy('resting', pirate, 1);
    await untilOn('resting', 1);
    expect((await world.adapter('resting')).currentRevision).toBe(revision);
  });
});

describe('an adapter by traffic', () => {
  it('comes to another pod when it is asked for', async () => {
    await world.apply(stored('busy', { placement: { mode: 'Auto' } }));
    const [holder] = await untilServedBy('busy', sql, 1);
    for (let request = 0; request < 8; request += 1) await ask(holder?.ip ?? '', 'busy', QUESTION);
    await untilServedBy('busy', sql, 2);
  });
});
