import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { digestOf, goodAdapter } from '../support/adapter-files.ts';
import { eventually } from '../support/eventually.ts';
import { NAMESPACE, pushedAdapter } from './adapter/objects.ts';
import { OperatorWorld, PATIENCE } from './operator-world.ts';

/** A lease that could not be given back runs out after six seconds. */
const SUCCESSION = { timeoutMs: 40_000 };
const GRACE_MS = 10_000;

/** Starts an etcd, an API server and operators as processes: about ten seconds. */
describe('the operator as a process', () => {
  let world: OperatorWorld;

  beforeAll(async () => {
    world = await OperatorWorld.start({ network: '127.0.4' });
    await world.apply(pushedAdapter('policy', { metadata: { finalizers: [] } }));
  });

  afterAll(async () => {
    await world?.stop();
  });

  it('lets adapters of other namespaces in by the labels of these, as they are now', async () => {
    const operator = await world.startOperator('zeroth');
    const tenancy = (namespaces: object) => JSON.stringify({ spec: { tenancy: { namespaces } } });
    const grant = (namespaces: object) =>
      world.kubectl(
        ...['-n', NAMESPACE, 'patch', 'serverpool', 'parrot', '--type=merge', '-p'],
        tenancy(namespaces),
      );
    const placed = 'jsonpath={.status.conditions[?(@.type=="Placed")].reason}';
    const untilPlaced = (reason: string) =>
      eventually(`placed: ${reason}`, PATIENCE, async () =>
        (await world.kubectl('-n', 'rl', 'get', 'lora', 'tenant', '-o', placed)) === reason
          ? true
          : undefined,
      );
    await world.kubectl('create', 'namespace', 'rl');
    const poolRef = { name: 'parrot', namespace: NAMESPACE };
    await world.apply(
      pushedAdapter('tenant', { metadata: { namespace: 'rl', finalizers: [] }, spec: { poolRef } }),
    );
    await untilPlaced('NotPermitted');
    await grant({ from: 'Selector', selector: { matchLabels: { team: 'rl' } } });
    await world.kubectl('label', 'namespace', 'rl', 'team=rl');
    await untilPlaced('Placed');
    await world.kubectl('label', 'namespace', 'rl', 'team-');
    await untilPlaced('NotPermitted');
    await world.kubectl('-n', 'rl', 'delete', 'lora', 'tenant', '--timeout=20s');
    expect((await operator.process.stop(GRACE_MS)).code).toBe(0);
  });

  it('serves pushes, survives its leader, and gives the lease back', async () => {
    const first = await world.startOperator('first');
    await eventually('first waits for a push', PATIENCE, async () => {
      const reason = await world.lora('{.status.conditions[?(@.type=="Ready")].reason}');
      return reason === 'WaitingForPush' ? true : undefined;
    });
    expect((await world.push(first.push, { seed: 1, step: 1 })).status).toBe(200);
    expect(world.pods.map((pod) => pod.currentOf('policy'))).toEqual(Array(2).fill(digestOf(goodAdapter(1))));
    await world.kubectl('-n', NAMESPACE, 'wait', '--for=condition=Ready', '--timeout=20s', 'lora/policy');
    expect(await world.lora('{.status.currentRevision.step} {.status.pods.summary}')).toBe('1 2/2');
    const events = await world.kubectl('-n', NAMESPACE, 'describe', 'lora', 'policy');
    expect(events).toMatch(/Normal\s+Activated/);
    const metrics = await (await fetch(`${first.metrics}/metrics`)).text();
    const counted = (name: string) =>
      metrics.match(new RegExp(`^lorikeet_operator_${name} (\\d+)$`, 'm'))?.[1] ?? `no ${name}`;
    for (const name of ['api_wait_seconds_count{lane="usual"}', 'api_wait_seconds_count{lane="review"}'])
      expect(Number(counted(name))).toBeGreaterThan(0);
    for (const kind of ['adapters', 'pools'])
      expect(Number(counted(`status_lag_seconds_count{kind="${kind}"}`))).toBeGreaterThan(0);
    for (const kind of ['adapters', 'pools', 'pods'])
      expect(counted(`reflector_misses_total{kind="${kind}"}`)).toBe('0');
    expect(counted('events_dropped_total{cause="failed"}')).toBe('0');

    // A follower hands pushes on, and takes over when the leader goes.
    const second = await world.startOperator('second');
    await eventually('second forwards', PATIENCE, async () =>
      (await world.push(second.push, { seed: 2, step: 2 })).status === 200 ? true : undefined,
    );
    // So does it a rollback, which then holds, also for the operator that leads next.
    const [earlier, undone] = [1, 2].map((seed) => digestOf(goodAdapter(seed)));
    expect((await world.rollback(second.push, {}, 'default')).status).toBe(403);
    const answer = await world.rollback(second.push, { expectCurrent: undone });
    const body = { revision: earlier, previous: undone, noop: false };
    expect(answer).toMatchObject({ status: 200, body });
    expect(world.pods.map((pod) => pod.currentOf('policy'))).toEqual([earlier, earlier]);
    await eventually('status says so', PATIENCE, async () =>
      (await world.lora('{.status.desiredRevision.rollback.from}')) === undone ? true : undefined,
    );
    await eventually(
      'an event says so',
      PATIENCE,
      async () =>
        /Normal\s+RolledBack/.test(await world.kubectl('-n', NAMESPACE, 'describe', 'lora', 'policy')) ||
        undefined,
    );
    expect((await first.process.stop(GRACE_MS)).code).toBe(0);
    const again = await eventually('second leads', SUCCESSION, async () => {
      const reply = await world.rollback(second.push, {});
      return reply.status === 200 ? reply : undefined;
    });
    expect(again.body).toMatchObject({ revision: earlier, noop: true });
    expect((await world.push(second.push, { seed: 3, step: 2 })).status).toBe(409);
    expect((await world.push(second.push, { seed: 3, step: 3 })).status).toBe(200);
    expect(world.pods.map((pod) => pod.currentOf('policy'))).toEqual(Array(2).fill(digestOf(goodAdapter(3))));

    await world.kubectl('-n', NAMESPACE, 'delete', 'lora', 'policy', '--timeout=20s');
    expect(world.pods.map((pod) => pod.currentOf('policy'))).toEqual([null, null]);

    await world.kubectl('-n', 'default', 'delete', 'lease', 'lorikeet-operator');
    expect((await second.process.exited).code).toBe(1);
  });
});
