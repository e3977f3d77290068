import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ask, fixtureAdapter, push, pushed, pushUrl } from '../e2e/client.ts';
import { BUCKET, pushedAdapter, storedAdapter } from '../e2e/manifests.ts';
import type { SeenPod } from '../e2e/objects.ts';
import { NAMESPACE, PARROT_MODEL, World } from '../e2e/world.ts';
import { eventually } from '../support/eventually.ts';
import { findTool } from '../support/tools.ts';
import {
  adminToken,
  brokenAdapter,
  crowd,
  putByHand,
  refusedPushes,
  removeAgainAndAgain,
  strangersAtPod,
  trickle,
} from './faults.ts';
import { hasten } from './hasten.ts';
import { type Firing, type Labels, type Prometheus, startPrometheus } from './prometheus.ts';
import { RECORDED, tellsFromRecording } from './recorded.ts';
import { allRules, readRules } from './rules.ts';

/**
 * Each alert is made to fire once, and is silent before: real processes, a real Prometheus that scrapes them, and faults that
 * are really made. Durations of the rules are shortened (hasten.ts), nothing else. What is in no table here fires in recorded.ts.
 */

const folder = findTool('prometheus');
if (folder === null) process.stderr.write('alerts are not fired: there is no Prometheus (set-up said why)\n');

const METRICS_PORT = 9090;
const SERVING_PORT = 8000;
/** json, pirate, some-layers and embed-and-head together take more than nine tenths of it, without the last a third. */
const ROOM = '3320Ki';
const FILL = ['pirate', 'some-layers', 'embed-and-head'];
const PATIENCE = { timeoutMs: 60_000, everyMs: 500 };

let world: World;
let prometheus: Prometheus;
let token: string;
let operator: SeenPod;
let pods: [SeenPod, SeenPod];
const fired = new Set<string>();

async function untilFiring(alert: string, labels: Labels = {}): Promise<Firing> {
  const firing = await eventually(`${alert} fires`, PATIENCE, async () =>
    (await prometheus.firing()).find(
      (each) =>
        each.labels.alertname === alert &&
        Object.entries(labels).every(([name, value]) => each.labels[name] === value),
    ),
  );
  fired.add(alert);
  return firing;
}

const live = () => pushUrl(operator.ip, NAMESPACE, 'live');

describe.skipIf(folder === null)('alerts', () => {
  beforeAll(async () => {
    const small = { hostBytes: ROOM, slots: 3, maxBatch: 4, maxWaiting: 4 };
    const baseModel = { ...PARROT_MODEL, engine: { ...PARROT_MODEL.engine, ...small } };
    world = await World.withPool({ baseModel, spoolBytes: ROOM });
    token = await world.tokenFor('trainer', 'lorikeet-push');
    await world.allowPush('trainer');
    await world.apply(pushedAdapter('live'));
    await world.untilAdapter('live', 'observed', ({ conditions }) => conditions.Ready !== undefined);
    [operator] = (await world.operators()) as [SeenPod];
    pods = (await world.servers()) as [SeenPod, SeenPod];
    const targets = [`${operator.ip}:${METRICS_PORT}`, ...pods.map(({ ip }) => `${ip}:${SERVING_PORT}`)];
    prometheus = await startPrometheus(folder as string, { targets, rules: hasten(readRules()) });
  }, 150_000);

  afterAll(async () => {
    await prometheus?.stop();
    await world?.stop();
  }, 60_000);

  it('are all silent while pushes and requests come and all is well', async () => {
    // Before its first scrape nobody leads, as far as Prometheus knows: in earnest that lasts less than `for`.
    await eventually('nothing fires', PATIENCE, async () =>
      (await prometheus.firing()).length === 0 ? true : undefined,
    );
    const startedAtMs = performance.now();
    for (const [index, style] of ['pirate', 'json'].entries()) {
      await pushed(live(), await fixtureAdapter(style), { token, step: index + 1 });
      for (const { ip } of pods) expect((await ask(ip, 'live', 'Hello')).status).toBe(200);
      await sleep(4_000);
    }
    const seen = await prometheus.query(
      `count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[${Math.floor((performance.now() - startedAtMs) / 1000)}s]))`,
    );
    expect(seen.map(({ labels }) => labels.alertname)).toEqual([]);
  }, 60_000);

  describe('fire when', () => {
    it('a source holds an adapter that does not fit', async () => {
      const { tensors, config } = brokenAdapter('shape-out');
      await world.store.put(BUCKET, 'broken/adapter_model.safetensors', tensors);
      await world.store.put(BUCKET, 'broken/adapter_config.json', config);
      await world.apply(storedAdapter('broken', world.store.endpoint));
      const labels = { ns: NAMESPACE, adapter: 'broken' };
      const { annotations } = await untilFiring('LorikeetAdapterNotReady', {
        ...labels,
        reason: 'AdapterIncompatible',
      });
      expect(annotations.summary).toBe('LoraAdapter models/broken is not Ready (AdapterIncompatible)');
      await untilFiring('LorikeetRevisionNotServed', labels);
      await world.plane.kubectl(['delete', 'lora', 'broken', '-n', NAMESPACE, '--timeout=30s']);
    });

    it('pushes are refused, for what they are and for who sends them', async () => {
      await refusedPushes(operator.ip, token, 'nan');
      await untilFiring('LorikeetPushesRefused');
      await refusedPushes(operator.ip, 'nobody', null);
      await untilFiring('LorikeetPushesUnauthorized');
    });

    it('a pod is asked for more than it can do, and by strangers', async () => {
      const instance = `${pods[0].ip}:${SERVING_PORT}`;
      const stop = new AbortController();
      const crowded = (async () => {
        while (!stop.signal.aborted) await crowd(pods[0].ip);
      })();
      try {
        await strangersAtPod(pods[0].ip);
        await untilFiring('LorikeetAdminTokenRefused', { instance });
        await untilFiring('LorikeetRequestsRefused', { instance });
      } finally {
        stop.abort();
        await crowded;
      }
    });

    it('adapters fill slots, host memory and spool', async () => {
      for (const name of FILL) {
        const { tensors, config } = await fixtureAdapter(name);
        await world.store.put(BUCKET, `${name}/adapter_model.safetensors`, tensors);
        await world.store.put(BUCKET, `${name}/adapter_config.json`, config);
        await world.apply(storedAdapter(name, world.store.endpoint));
        await world.untilReady(name);
      }
      await untilFiring('LorikeetCapacityPressure', {
        ns: NAMESPACE,
        pool: 'parrot',
        reason: 'HostMemoryFull',
      });
      await untilFiring('LorikeetHostMemoryFull', { instance: `${pods[1].ip}:${SERVING_PORT}` });
      await untilFiring('LorikeetSpoolFull', { instance: `${operator.ip}:${METRICS_PORT}` });
      await world.plane.kubectl(['delete', 'lora', ...FILL, '-n', NAMESPACE, '--timeout=30s']);
    });

    it('somebody else puts adapters into a pod, and takes ours out', async () => {
      const stop = new AbortController();
      const secret = await adminToken(world);
      await putByHand(pods[0].ip, secret, 'by-hand');
      const removing = removeAgainAndAgain(pods[0].ip, { token: secret, name: 'live', stop: stop.signal });
      try {
        await untilFiring('LorikeetUnownedAdapters', { ns: NAMESPACE, pool: 'parrot' });
        await untilFiring('LorikeetAdapterThrash', { instance: `${operator.ip}:${METRICS_PORT}` });
      } finally {
        stop.abort();
        await removing;
      }
      await world.untilReady('live');
    });

    it('a pod hangs, and a push goes past it; another pool has no pods at all', async () => {
      await world.apply({
        apiVersion: 'lorikeet.dev/v1alpha1',
        kind: 'ServerPool',
        metadata: { name: 'empty', namespace: NAMESPACE },
        spec: {
          selector: { matchLabels: { app: 'nothing' } },
          baseModel: { name: 'parrot' },
          admin: { auth: { tokenSecretRef: { name: 'parrot-admin', key: 'token' } } },
        },
      });
      await world.apply(pushedAdapter('nowhere', { poolRef: { name: 'empty' } }));
      const [hung] = pods;
      world.node.pause(NAMESPACE, hung.name);
      try {
        await push(live(), await fixtureAdapter('sql'), { token, step: 3 });
        await untilFiring('LorikeetRevisionSkew', { ns: NAMESPACE, adapter: 'live' });
        const nowhere = pushUrl(operator.ip, NAMESPACE, 'nowhere');
        const failing = await push(nowhere, await fixtureAdapter('sql'), { token, step: 1 });
        expect(failing.status).toBe(503);
        await untilFiring('LorikeetPushesFail');
        await untilFiring('LorikeetPodUnreachable', { ns: NAMESPACE, pool: 'parrot', pod: hung.name });
        await untilFiring('LorikeetPoolNotReady', { ns: NAMESPACE, pool: 'parrot', reason: 'PodsNotReady' });
      } finally {
        world.node.resume(NAMESPACE, hung.name);
      }
    }, 120_000);

    it('a server process dies again and again, and a push stands still', async () => {
      const { name, ip } = pods[1];
      const instance = `${ip}:${SERVING_PORT}`;
      const startedAt = async () =>
        (await prometheus.query(`process_start_time_seconds{instance="${instance}"}`))[0]?.value;
      for (let death = 0; death < 2; death += 1) {
        const before = await startedAt();
        world.node.kill(NAMESPACE, name);
        await eventually('it is scraped again', PATIENCE, async () => {
          const now = await startedAt();
          return now !== undefined && now !== before ? true : undefined;
        });
      }
      await untilFiring('LorikeetServerRestarts', { instance });
      const stop = new AbortController();
      const trickling = trickle(operator.ip, token, stop.signal);
      await untilFiring('LorikeetPushHangs', { instance: `${operator.ip}:${METRICS_PORT}` });
      stop.abort();
      await trickling;
    }, 120_000);
  });

  it.each(RECORDED)('$alert fires on series of a real scrape ($why)', async (recorded) => {
    expect(await tellsFromRecording(folder as string, recorded, prometheus)).toEqual({
      fault: true,
      health: false,
    });
    fired.add(recorded.alert);
  });

  it('fire when the API server is away: nobody leads any more, and nothing can be followed', async () => {
    world.plane.signal('kube-apiserver', 'SIGKILL');
    await untilFiring('LorikeetNoLeader');
    await untilFiring('LorikeetCacheStale', { kind: 'pods', instance: `${operator.ip}:${METRICS_PORT}` });
  });

  it('have all fired', () => {
    expect([...fired].sort()).toEqual(
      allRules()
        .map(({ alert }) => alert)
        .sort(),
    );
  });
});
