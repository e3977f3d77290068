import { Agent } from 'undici';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ServerPool } from '../../../operator/api/server-pool.ts';
import { systemClock } from '../../../operator/kube/clock.ts';
import { silentLog } from '../../../operator/kube/log.ts';
import { Fleet, type KubePod } from '../../../operator/pods/fleet.ts';
import { changedAdapters, type FleetChange } from '../../../operator/pods/pod.ts';
import type { AdminTokens } from '../../../operator/pods/token.ts';
import { digestOf, goodAdapter } from '../../support/adapter-files.ts';
import { POD_TOKEN, ScriptedPod } from '../../support/pod/scripted-pod.ts';
import { adapterState, digest, held, podState } from '../../support/pod/state.ts';
import { kubePod, POOL_KEY, serverPool } from '../adapter/objects.ts';

const TIMEOUTS = { shortMs: 300, stallMs: 300, silenceMs: 500, transferMs: 2_000, watchIdleMs: 25_000 };

let server: ScriptedPod;
let dispatcher: Agent;
let fleet: Fleet;
let pools: ServerPool[];
let pods: KubePod[];
let changes: FleetChange[];
let secret: AdminTokens;

beforeEach(async () => {
  server = await ScriptedPod.start({ host: '127.0.3.1' });
  dispatcher = new Agent();
  pools = [serverPool(server.port)];
  pods = [kubePod('pod-0', server.host)];
  changes = [];
  secret = { token: POD_TOKEN, previous: null };
  fleet = new Fleet({
    pools: { list: () => pools },
    pods: { list: () => pods },
    readToken: async () => secret,
    readTls: async () => ({}),
    dispatcher,
    clock: systemClock,
    random: () => 0,
    log: silentLog,
    timeouts: TIMEOUTS,
  });
  fleet.onChange((change) => void changes.push(change));
});

afterEach(async () => {
  await fleet.close();
  await server.stop();
  await dispatcher.destroy();
});

const names = () => fleet.podsOf(POOL_KEY).map(({ name }) => name);
const only = () => fleet.podsOf(POOL_KEY)[0];

describe('the pods of a pool', () => {
  const LABELS = { app: 'parrot', tier: 'gpu' };
  const other = (overrides: Partial<KubePod['metadata']>, status?: KubePod['status']): KubePod => {
    const pod = kubePod('other', '127.0.3.9', overrides);
    return status ? { ...pod, status } : pod;
  };
  it.each([
    ['another label', other({ labels: { app: 'owl' } })],
    ['no label', other({ labels: {} })],
    ['another namespace', other({ namespace: 'elsewhere' })],
    ['not running', other({}, { phase: 'Pending', podIP: '127.0.3.9' })],
    ['no address', other({}, { phase: 'Running' })],
    ['leaving', other({ deletionTimestamp: '2026-06-01T00:00:00Z' })],
  ])('do not include one with %s', (_name, pod) => {
    pods.push(pod);
    fleet.sync();
    expect(names()).toEqual(['pod-0']);
  });

  it.each([
    ['In', { key: 'tier', operator: 'In', values: ['gpu'] }, true],
    ['In, not among them', { key: 'tier', operator: 'In', values: ['cpu'] }, false],
    ['NotIn', { key: 'tier', operator: 'NotIn', values: ['cpu'] }, true],
    ['Exists', { key: 'tier', operator: 'Exists' }, true],
    ['DoesNotExist', { key: 'tier', operator: 'DoesNotExist' }, false],
  ])('go by the whole selector: %s', (_name, expression, isMember) => {
    pools = [serverPool(server.port, { selector: { matchExpressions: [expression] } })];
    pods = [kubePod('pod-0', server.host, { labels: LABELS })];
    fleet.sync();
    expect(names()).toEqual(isMember ? ['pod-0'] : []);
  });

  it('come and go with the caches', async () => {
    fleet.sync();
    await fleet.whenHeard(2_000);
    expect(only()).toMatchObject({ reachable: true, error: null });
    pods = [];
    fleet.sync();
    expect(names()).toEqual([]);
    pools = [];
    fleet.sync();
  });

  it('belong to the oldest of several that select them, and to the next when that is gone', async () => {
    const at = (name: string, creationTimestamp: string) => {
      const pool = serverPool(server.port);
      return { ...pool, metadata: { ...pool.metadata, name, uid: `uid-${name}`, creationTimestamp } };
    };
    pools = [at('young', '2026-02-01T00:00:00Z'), at('parrot', '2026-01-01T00:00:00Z')];
    fleet.sync();
    expect(names()).toEqual(['pod-0']);
    expect(fleet.podsOf('lora/young')).toEqual([]);
    expect(fleet.claimedOf('lora/young')).toEqual([{ name: 'pod-0', owner: POOL_KEY }]);
    expect(changes).toContainEqual({ poolKey: 'lora/young', adapters: 'all' });

    pools = pools.slice(0, 1);
    fleet.sync();
    expect(fleet.podsOf('lora/young').map(({ name }) => name)).toEqual(['pod-0']);
    expect(fleet.claimedOf('lora/young')).toEqual([]);
  });

  it('are others when another pod has the name, or the address', async () => {
    fleet.sync();
    const before = only();
    fleet.sync();
    expect(only()).toBe(before);
    pods = [kubePod('pod-0', server.host, { uid: 'another' })];
    fleet.sync();
    expect(only()).not.toBe(before);
    expect(before?.reachable).toBe(false);
  });
});

describe('a followed pod', () => {
  it('that restarts is seen to, at once', async () => {
    fleet.sync();
    await fleet.whenHeard(2_000);
    const bootId = only()?.state?.bootId;
    await server.restart();
    await expect.poll(() => only()?.state?.bootId).not.toBe(bootId);
    expect(only()?.reachable).toBe(true);
    expect(changes.at(-1)).toEqual({ poolKey: POOL_KEY, adapters: 'all' });
  });

  it('that drops an adapter says that it has room', async () => {
    fleet.sync();
    await fleet.whenHeard(2_000);
    const files = goodAdapter(1);
    const config = JSON.parse(files.config.toString('utf8')) as unknown;
    const { signal } = new AbortController();
    const fence = { term: 1, sequence: 1 };
    const options = { size: files.tensors.length, config, step: null, fence, signal };
    await only()?.client.stage('sql', digestOf(files), files.tensors, options);
    await expect.poll(() => only()?.state?.adapters.length).toBe(1);
    expect(changes.some(({ freed }) => freed)).toBe(false);
    await only()?.client.remove('sql', null, fence, signal);
    await expect.poll(() => changes.some(({ freed }) => freed)).toBe(true);
  });

  // Over a second: a Secret is not read more often after refusals.
  it('that takes no token is unreachable, and is tried on until one fits', async () => {
    secret = { token: 'the-next-token', previous: null };
    fleet.sync();
    await fleet.whenHeard(2_000);
    expect(only()).toMatchObject({ reachable: false, error: 'Expected the admin token as bearer token' });
    secret = { token: 'the-next-token', previous: POD_TOKEN };
    await expect.poll(() => only()?.reachable, { timeout: 20_000 }).toBe(true);
  });

  it('that dies is unreachable, and says why', async () => {
    fleet.sync();
    await fleet.whenHeard(2_000);
    await server.stop();
    await expect.poll(() => only()?.reachable).toBe(false);
    expect(only()?.error).toContain('ECONNREFUSED');
  });

  it('that accepts but does not answer is unreachable too', async () => {
    server.fail('watch', { kind: 'hang' }, 100);
    fleet.sync();
    await expect.poll(() => only()?.error, { timeout: 3_000 }).toBe('no answer in time');
  });

  it('is waited for', async () => {
    fleet.sync();
    await fleet.whenHeard(2_000);
    const pod = only();
    if (!pod) throw new Error('there is no pod');
    const seeded = fleet.whenState(pod, (state) => state.seeded, 2_000);
    await pod.client.seeded({ term: 1, sequence: 1 }, new AbortController().signal);
    expect(await seeded).toBe(true);
    expect(await fleet.whenState(pod, (state) => state.epoch > 100, 30)).toBe(false);
    const gone = fleet.whenState(pod, () => false, 5_000);
    pods = [];
    fleet.sync();
    expect(await gone).toBe(false);
  });
});

describe('what changed between two reports', () => {
  const [A, B] = [digest('a'), digest('b')];
  const sql = (revision: string, tier: 'slot' | 'host' = 'slot', leases = 0) => ({
    adapters: [adapterState('sql', revision, [held(revision, 'current', { tier, leases })])],
  });
  it.each([
    ['the first', null, podState(), 'all'],
    ['another boot', { ...podState(), bootId: 'old' }, podState(), 'all'],
    ['seeded', { ...podState(), seeded: false }, podState(), 'all'],
    ['a new adapter', podState(), podState(sql(A)), ['sql']],
    ['another current revision', podState(sql(A)), podState(sql(B)), ['sql']],
    ['an adapter less', podState(sql(A)), podState(), ['sql']],
    ['leases and tiers', podState(sql(A)), podState(sql(A, 'host', 3)), []],
  ] as const)('%s', (_name, before, after, expected) => {
    expect(changedAdapters(before, after)).toEqual(expected);
  });
});
