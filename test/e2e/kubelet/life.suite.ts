import { afterAll, beforeAll, expect, it } from 'vitest';
import { eventually } from '../../support/eventually.ts';
import { ask, fixtureAdapter, pushed, pushUrl, stream } from '../client.ts';
import { goldenAnswer } from '../golden.ts';
import { BUCKET, pushedAdapter, storedAdapter } from '../manifests.ts';
import { NAMESPACE, POOL, SYSTEM, type World } from '../world.ts';
import { type Nodes, startRealWorld } from './cluster.ts';
import { helmOf, killByMemory, ready, serviceAddress } from './deeds.ts';

/** One cluster, from install to uninstall: each test goes on from where the one before left it. */

const QUESTION = 'Show me orders sorted by name.';
const SERVERS = 2;
let world: World<Nodes>;
let helm: ReturnType<typeof helmOf>;

beforeAll(async () => {
  world = await startRealWorld();
  helm = helmOf(world);
  const { tensors, config } = await fixtureAdapter('sql');
  await world.store.put(BUCKET, 'sql/adapter_model.safetensors', tensors);
  await world.store.put(BUCKET, 'sql/adapter_config.json', config);
});

afterAll(() => world?.stop());

/** What every server pod answers. */
async function answers(model: string): Promise<string[]> {
  const pods = (await world.servers()).filter(({ ready, terminating }) => ready && !terminating);
  return Promise.all(pods.map(async ({ ip }) => (await ask(ip, model, QUESTION)).text));
}

async function expectEverywhere(model: string, style: string): Promise<void> {
  const expected = await goldenAnswer(style, QUESTION);
  expect(await answers(model)).toEqual(Array(SERVERS).fill(expected));
}

const pushTo = async (adapter: string, step: number) => {
  const url = pushUrl(await serviceAddress(world, SYSTEM, 'lorikeet'), NAMESPACE, 'live');
  const token = await world.tokenFor('trainer', 'lorikeet-push');
  return await pushed(url, await fixtureAdapter(adapter), { token, step });
};

it('installs both charts where Pod Security enforces restricted, and serves an adapter from S3', async () => {
  await world.applyCharts({ servers: SERVERS, operators: 2 });
  await world.untilPodsReady(SERVERS, 2, 200_000);
  await world.apply(storedAdapter('sql', world.store.endpoint));
  await world.untilReady('sql');
  await expectEverywhere('sql', 'sql');
});

it('refuses in that namespace a pod that Pod Security forbids', async () => {
  const run = ['run', 'loose', '-n', NAMESPACE, '--image=localhost/lorikeet-server:dev'];
  await expect(world.plane.kubectl(run)).rejects.toThrow('violates PodSecurity "restricted');
});

it('answers at the Service, whose endpoints are the ready pods', async () => {
  const slices = ['get', 'endpointslices', '-n', NAMESPACE, '-l', `kubernetes.io/service-name=${POOL}`];
  const path = '{.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}';
  const addresses = (await world.plane.kubectl([...slices, '-o', `jsonpath=${path}`])).split(' ');
  expect(addresses.toSorted()).toEqual((await world.servers()).map(({ ip }) => ip).toSorted());
  const { text } = await ask(await serviceAddress(world, NAMESPACE, POOL), 'sql', QUESTION);
  expect(text).toBe(await goldenAnswer('sql', QUESTION));
});

it('takes pushes at the Service of two operators; a running stream keeps its revision', async () => {
  await world.apply(pushedAdapter('live'));
  await world.allowPush('trainer');
  await world.untilAdapter('live', 'observed', ({ conditions }) => conditions.Ready !== undefined);
  const first = await pushTo('pirate', 1);
  await expectEverywhere('live', 'pirate');
  const [pod] = await world.servers();
  const long = stream(pod?.ip ?? '', 'live', QUESTION, { ignore_eos: true, max_tokens: 2_000 });
  await long.started;
  await pushTo('json', 2);
  await expectEverywhere('live', 'json');
  expect((await long.done).revision).toBe(first.revision);
});

it('seeds the pod that replaces a killed one before it is Ready', async () => {
  const [victim] = await world.servers();
  await world.plane.kubectl(['delete', 'pod', victim?.name ?? '', '-n', NAMESPACE, '--now']);
  await world.untilPodsReady(SERVERS, 2);
  await expectEverywhere('sql', 'sql');
  await expectEverywhere('live', 'json');
});

it('has a pod whose server the kernel killed for memory back with its adapters', async () => {
  const [victim, other] = await world.servers();
  if (!victim || !other) throw new Error('no two server pods');
  const told = await killByMemory(world, victim);
  const seen = ['get', 'pod', victim.name, '-n', NAMESPACE, '-o'];
  const reason = '{.status.containerStatuses[0].lastState.terminated.reason}';
  await eventually(`it was restarted (${told})`, { timeoutMs: 60_000 }, async () => {
    const now = (await world.servers()).find(({ uid }) => uid === victim.uid);
    return now !== undefined && now.restarts > victim.restarts ? now : undefined;
  });
  expect(await world.plane.kubectl([...seen, `jsonpath=${reason}`])).toBe('OOMKilled');
  await world.untilPodsReady(SERVERS, 2);
  await expectEverywhere('live', 'json');
});

it('keeps serving while an upgrade cannot pull its image, and is rolled back', async () => {
  const image = { repository: 'registry.invalid/lorikeet-server', tag: 'none', pullPolicy: 'IfNotPresent' };
  await world.applyServers({ servers: SERVERS }, { image });
  await eventually('a pod waits for its image', { timeoutMs: 90_000 }, async () => {
    const path = '{.items[*].status.containerStatuses[*].state.waiting.reason}';
    const reasons = await world.plane.kubectl(['get', 'pods', '-n', NAMESPACE, '-o', `jsonpath=${path}`]);
    return /ImagePullBackOff|ErrImagePull/.test(reasons) || undefined;
  });
  await expectEverywhere('live', 'json');
  expect((await world.adapter('live')).conditions.Ready?.status).toBe('True');
  await helm(NAMESPACE, ['rollback', POOL, '1']);
  await ready(world, NAMESPACE, POOL);
  await world.untilPodsReady(SERVERS, 2);
  await expectEverywhere('live', 'json');
});

it('upgrades both charts with objects in place: new pods have every adapter', async () => {
  const before = (await world.servers()).map(({ uid }) => uid);
  await world.applyOperator({ operators: 2 }, { logLevel: 'debug' });
  await world.applyServers({ servers: SERVERS }, { logLevel: 'debug' });
  await ready(world, SYSTEM, 'lorikeet');
  await ready(world, NAMESPACE, POOL);
  await world.untilPodsReady(SERVERS, 2);
  const old = (await world.servers()).filter(({ uid, terminating }) => before.includes(uid) && !terminating);
  expect(old).toEqual([]);
  await expectEverywhere('sql', 'sql');
  await expectEverywhere('live', 'json');
  await pushTo('pirate', 3);
  await expectEverywhere('live', 'pirate');
});

it('drains a node: what ran there runs elsewhere, and the Service answers all the while', async () => {
  const address = await serviceAddress(world, NAMESPACE, POOL);
  const wrong: string[] = [];
  let draining = true;
  const asking = (async () => {
    while (draining) {
      const { status, text } = await ask(address, 'live', QUESTION).catch((error) => ({
        status: 0,
        text: `${error}`,
      }));
      if (status !== 200) wrong.push(`${status} ${text}`);
    }
  })();
  const drain = ['drain', 'node-b', '--ignore-daemonsets', '--delete-emptydir-data', '--timeout=180s'];
  await world.plane.kubectl(drain).finally(() => {
    draining = false;
  });
  await asking;
  await world.untilPodsReady(SERVERS, 2);
  await expectEverywhere('live', 'pirate');
  await world.plane.kubectl(['uncordon', 'node-b']);
  expect(wrong).toEqual([]);
});

it('keeps strangers from the admin port by NetworkPolicy', ({ skip }) => {
  skip('the bridge plugin enforces no NetworkPolicy');
});

it('takes a deleted adapter out of every pod', async () => {
  await world.plane.kubectl(['delete', 'lora', 'sql', '-n', NAMESPACE]);
  for (const { ip } of await world.servers()) expect((await ask(ip, 'sql', QUESTION)).status).toBe(404);
});

it('leaves nothing that hangs when the operator is uninstalled first', async () => {
  await world.apply(storedAdapter('sql', world.store.endpoint));
  await world.untilReady('sql');
  await world.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'team' } });
  const elsewhere = pushedAdapter('orphan') as { metadata: object };
  await world.apply({ ...elsewhere, metadata: { name: 'orphan', namespace: 'team' } });
  const isHeld = ['get', 'lora', 'orphan', '-n', 'team', '-o', 'jsonpath={.metadata.finalizers}'];
  await eventually('the operator has taken it up', { timeoutMs: 30_000 }, async () => {
    return (await world.plane.kubectl(isHeld)) !== '' || undefined;
  });
  await helm(SYSTEM, ['uninstall', 'lorikeet', '--timeout', '3m']);
  const held = '{.items[*].metadata.finalizers}';
  const loras = ['get', 'loras', '-A', '-o'];
  expect(await world.plane.kubectl([...loras, 'name'])).not.toBe('');
  expect(await world.plane.kubectl([...loras, `jsonpath=${held}`])).toBe('');
  await world.plane.kubectl(['delete', 'lora', 'sql', '-n', NAMESPACE, '--timeout=20s']);
  await world.plane.kubectl(['delete', 'namespace', 'team', '--timeout=60s']);
});

it('looks after what is there when it is installed again', async () => {
  await world.applyOperator({ operators: 2 });
  await world.untilPodsReady(SERVERS, 2, 120_000);
  await world.untilReady('live');
  const finalizers = ['get', 'lora', 'live', '-n', NAMESPACE, '-o', 'jsonpath={.metadata.finalizers}'];
  await eventually('the operator has taken it up', { timeoutMs: 60_000 }, async () => {
    return (await world.plane.kubectl(finalizers)).includes('lorikeet.dev/adapter') || undefined;
  });
  await expectEverywhere('live', 'pirate');
});

it('goes in the order of the notes, namespace and all', async () => {
  await world.plane.kubectl(['delete', 'loras', '--all', '-A', '--timeout=60s']);
  await helm(NAMESPACE, ['uninstall', POOL, '--wait', '--timeout', '2m']);
  await helm(SYSTEM, ['uninstall', 'lorikeet', '--timeout', '3m']);
  await world.plane.kubectl(['delete', 'namespace', NAMESPACE, SYSTEM, '--timeout=120s']);
});
