import { beforeEach, describe, expect, it } from 'vitest';
import type { LoraAdapter } from '../../../operator/api/lora-adapter.ts';
import type { ServerPool } from '../../../operator/api/server-pool.ts';
import { type GaugeSources, registerGauges } from '../../../operator/telemetry/gauges.ts';
import { OperatorMetrics } from '../../../operator/telemetry/metrics.ts';
import { FakeClock } from '../kube/fake-clock.ts';
import { scrapedFrom } from './scraped.ts';

let clock: FakeClock;
let metrics: OperatorMetrics;

beforeEach(() => {
  clock = new FakeClock();
  metrics = new OperatorMetrics(() => clock.monotonicMs());
});

const scraped = (name: string) => scrapedFrom(metrics, name);

describe('what a scrape tells of pushes', () => {
  const timings = { authMs: 1, receiveMs: 20, stageMs: 300, activateMs: 4_000, totalMs: 4_321 };

  it('has every way to end before any push', async () => {
    const counts = await scraped('push_requests_total');
    expect(counts).toMatchObject({ 'code="ok"': 0, 'code="noop"': 0, 'code="client_gone"': 0 });
    expect(new Set(Object.values(counts))).toEqual(new Set([0]));
  });

  it('is how long each stage of an accepted one took', async () => {
    metrics.pushed('ok', 1_000, timings);
    expect(await scraped('push_stage_duration_seconds_sum')).toEqual({
      'stage="auth"': 0.001,
      'stage="receive"': 0.02,
      'stage="stage"': 0.3,
      'stage="activate"': 4,
    });
    expect(await scraped('push_duration_seconds_sum')).toEqual({ '': 4.321 });
    expect(await scraped('push_bytes_total')).toEqual({ '': 1_000 });
  });

  it.each(['noop', 'quota_exceeded'])('is a count alone of %s', async (code) => {
    metrics.pushed(code, 1_000, timings);
    expect(await scraped('push_requests_total')).toMatchObject({ [`code="${code}"`]: 1 });
    expect(await scraped('push_bytes_total')).toEqual({ '': 0 });
    expect(await scraped('push_duration_seconds_count')).toEqual({ '': 0 });
    expect(await scraped('push_stage_duration_seconds_count')).toMatchObject({ 'stage="stage"': 0 });
  });
});

describe('what a scrape tells of adapters and pools', () => {
  const none = {
    queues: { adapters: { depth: 0 }, pools: { depth: 0 } },
    fleet: { podsOf: () => [] },
    spool: { usedBytes: 0, pinnedBytes: 0, maxBytes: 0 },
  };
  const gauges = (adapters: object[], pools: object[]) =>
    registerGauges(metrics.registry, {
      adapters: { list: () => adapters as LoraAdapter[] },
      pools: { list: () => pools as ServerPool[] },
      leader: { leading: null },
      clock,
      ...none,
    });
  const adapter = (name: string, currentRevision?: object) => ({
    metadata: { namespace: 'ns', name },
    spec: { poolRef: { name: 'pool' } },
    status: currentRevision ? { currentRevision } : {},
  });

  it('is the step of the current revision, where it has one', async () => {
    gauges([adapter('a', { step: 12 }), adapter('b', { step: null }), adapter('c')], []);
    expect(await scraped('adapter_step')).toEqual({ 'ns="ns",adapter="a"': 12 });
  });

  it.each([
    [{ name: 'pool' }, 'ns'],
    [{ name: 'pool', namespace: 'others' }, 'others'],
  ])('is the pool of an adapter that names %j', async (poolRef, namespace) => {
    gauges([{ ...adapter('a'), spec: { poolRef, servedName: 'served' } }], []);
    expect(await scraped('adapter_info')).toEqual({
      [`ns="ns",adapter="a",served_name="served",pool="pool",pool_ns="${namespace}",revision=""`]: 1,
    });
  });

  it('is how many pods a pool has, and how many of them it can use', async () => {
    gauges([], [{ metadata: { namespace: 'ns', name: 'pool' }, status: { pods: 3, readyPods: 1 } }]);
    expect(await scraped('pool_pods')).toEqual({
      'ns="ns",pool="pool",state="ready"': 1,
      'ns="ns",pool="pool",state="unready"': 2,
    });
  });
});

describe('what a scrape tells of objects', () => {
  const named = (name: string, rest: object) => ({
    list: () => [{ metadata: { name, namespace: 'ns' }, ...rest }],
  });
  const condition = (type: string, status: string, reason: string) => ({ type, status, reason });
  const gauges = (adapter: object, conditions: object[], pods: { name: string; reachable: boolean }[]) =>
    registerGauges(metrics.registry, {
      adapters: named('sql', {
        spec: { poolRef: { name: 'llama' } },
        ...adapter,
      }) as unknown as GaugeSources['adapters'],
      pools: named('llama', { status: { conditions } }) as unknown as GaugeSources['pools'],
      leader: { leading: null },
      queues: { adapters: { depth: 0 }, pools: { depth: 0 } },
      fleet: { podsOf: (poolKey) => (poolKey === 'ns/llama' ? pods : []) },
      spool: { usedBytes: 30, pinnedBytes: 20, maxBytes: 40 },
      clock,
    });

  it('is why an adapter is not Ready, and nothing once it is', async () => {
    const status = { conditions: [condition('Ready', 'False', 'NoRoom')] };
    gauges({ status }, [], []);
    expect(await scraped('adapter_unready')).toEqual({ 'ns="ns",adapter="sql",reason="NoRoom"': 1 });
    status.conditions = [condition('Ready', 'True', 'Ready')];
    expect(await scraped('adapter_unready')).toEqual({});
  });

  it('is that an adapter has not been looked at', async () => {
    gauges({}, [], []);
    expect(await scraped('adapter_unready')).toEqual({ 'ns="ns",adapter="sql",reason="Pending"': 1 });
  });

  it('is which conditions of a pool hold, those left out of which nobody knows', async () => {
    const conditions = [
      condition('Ready', 'False', 'TokenNotFound'),
      condition('Other', 'Unknown', 'Pending'),
    ];
    gauges({}, [...conditions, condition('CapacityPressure', 'True', 'SlotsFull')], []);
    expect(await scraped('pool_condition')).toEqual({
      'ns="ns",pool="llama",condition="Ready",reason="TokenNotFound"': 0,
      'ns="ns",pool="llama",condition="CapacityPressure",reason="SlotsFull"': 1,
    });
  });

  it('is which pods are heard from, and how full the spool is', async () => {
    const pods = [
      { name: 'a', reachable: true },
      { name: 'b', reachable: false },
    ];
    gauges({}, [], pods);
    expect(await scraped('pod_reachable')).toEqual({
      'ns="ns",pool="llama",pod="a"': 1,
      'ns="ns",pool="llama",pod="b"': 0,
    });
    expect(await scraped('spool_bytes')).toEqual({ '': 30 });
    expect(await scraped('spool_bytes_max')).toEqual({ '': 40 });
    expect(await scraped('spool_pinned_bytes')).toEqual({ '': 20 });
  });
});
