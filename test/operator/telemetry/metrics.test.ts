import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { EventRecorder } from '../../../operator/kube/events.ts';
import { silentLog } from '../../../operator/kube/log.ts';
import { Reflector } from '../../../operator/kube/reflector.ts';
import { type KubeObject, PODS } from '../../../operator/kube/resource.ts';
import { Rest, type RestOptions } from '../../../operator/kube/rest.ts';
import { StatusWriter } from '../../../operator/kube/status-writer.ts';
import { registerGauges } from '../../../operator/telemetry/gauges.ts';
import { OperatorMetrics } from '../../../operator/telemetry/metrics.ts';
import { registerReflectors } from '../../../operator/telemetry/reflectors.ts';
import { FakeClock } from '../kube/fake-clock.ts';
import { PodsScript, pod } from '../kube/pods-script.ts';
import type { Reply } from '../kube/scripted-server.ts';
import { scrapedFrom } from './scraped.ts';

/** The clock stands still: this is only for the way over the loopback. */
const eventually = <T>(check: () => T) => vi.waitFor(check, { timeout: 10_000, interval: 5 });

let api: PodsScript;
let clock: FakeClock;
let metrics: OperatorMetrics;
let open: Rest[];

beforeEach(async () => {
  api = await PodsScript.start();
  clock = new FakeClock();
  metrics = new OperatorMetrics(() => clock.monotonicMs());
  open = [];
});

afterEach(async () => {
  await Promise.all(open.map((rest) => rest.close()));
  await api.server.stop();
});

function restOf(options: Partial<RestOptions> = {}): Rest {
  const rest = new Rest({
    credentials: api.server.credentials,
    clock,
    onWait: (lane, waitMs) => metrics.apiWaited(lane, waitMs),
    ...options,
  });
  open.push(rest);
  return rest;
}

const scraped = (name: string) => scrapedFrom(metrics, name);

describe('what a scrape tells of a reflector', () => {
  let stop: AbortController;
  let running: Promise<void>;

  beforeEach(async () => {
    stop = new AbortController();
    const reflector = new Reflector<KubeObject>({
      rest: restOf(),
      resource: PODS,
      log: silentLog,
      onChange: () => {},
      clock,
      random: () => 0.5,
    });
    registerReflectors(metrics.registry, { pods: reflector });
    running = reflector.run(stop.signal);
    await eventually(() => expect(api.watches.size).toBe(1));
  });

  afterEach(async () => {
    stop.abort();
    await running;
  });

  const relists = () => scraped('reflector_relists_total');
  const none = {
    'kind="pods",cause="due"': 0,
    'kind="pods",cause="stale"': 0,
    'kind="pods",cause="broken"': 0,
  };

  it('is nothing while all goes well', async () => {
    expect(await relists()).toEqual(none);
    expect(await scraped('reflector_failures_total')).toEqual({ 'kind="pods"': 0 });
    expect(await scraped('reflector_misses_total')).toEqual({ 'kind="pods"': 0 });
  });

  it('are the changes that its watch did not tell', async () => {
    api.put(pod('a'));
    api.put(pod('b'));
    api.bookmark();
    await eventually(async () => {
      await clock.advance(300_000);
      expect(await scraped('reflector_misses_total')).toEqual({ 'kind="pods"': 2 });
    });
  });

  it('is a relist that was due', async () => {
    await clock.advance(300_000);
    await eventually(async () => expect(await relists()).toEqual({ ...none, 'kind="pods",cause="due"': 1 }));
    expect(await scraped('reflector_failures_total')).toEqual({ 'kind="pods"': 0 });
  });

  it('is a relist because the watch could not go on', async () => {
    api.emit('ERROR', { code: 410 });
    await eventually(async () => {
      await clock.advance(5_000);
      expect(await relists()).toEqual({ ...none, 'kind="pods",cause="stale"': 1 });
    });
    expect(await scraped('reflector_failures_total')).toEqual({ 'kind="pods"': 1 });
  });

  it('is a relist because the one before failed', async () => {
    api.faults.list.push({ status: 500 });
    await clock.advance(300_000);
    await eventually(async () => {
      await clock.advance(5_000);
      expect(await relists()).toEqual({
        ...none,
        'kind="pods",cause="due"': 1,
        'kind="pods",cause="broken"': 1,
      });
    });
  });

  it('is a relist that fell due while no watch came through', async () => {
    api.faults.watch.push(...Array.from({ length: 200 }, () => ({ status: 500 })));
    for (const response of api.watches) response.destroy();
    await eventually(async () => {
      await clock.advance(5_000);
      expect(await relists()).toEqual({ ...none, 'kind="pods",cause="broken"': 1 });
    });
  });

  it('is a watch that broke and went on without a relist', async () => {
    for (const response of api.watches) response.destroy();
    await eventually(async () => {
      await clock.advance(5_000);
      expect(api.requestsOf('watch')).toHaveLength(2);
    });
    expect(await scraped('reflector_failures_total')).toEqual({ 'kind="pods"': 1 });
    expect(await relists()).toEqual(none);
  });
});

describe('what a scrape tells of events', () => {
  let recorder: EventRecorder;
  const dropped = () => scraped('events_dropped_total');
  const none = { 'cause="full"': 0, 'cause="limited"': 0, 'cause="failed"': 0 };

  beforeEach(() => {
    api.server.script = () => ({ status: 201 });
    recorder = new EventRecorder({
      rest: restOf({ perSecondMax: 10_000, burst: 10_000 }),
      component: 'lorikeet-operator',
      instance: 'pod-0',
      log: silentLog,
      onDrop: (cause) => metrics.eventDropped(cause),
      clock,
    });
  });

  afterEach(() => recorder.flush());

  const say = (of: string, times: number) => {
    for (let time = 0; time < times; time += 1) recorder.event(pod(of), 'Normal', 'Ready', `message ${time}`);
  };

  it('is nothing while none is dropped', async () => {
    say('a', 10);
    await recorder.flush();
    expect(await dropped()).toEqual(none);
  });

  it('are those that one object says too often', async () => {
    say('a', 13);
    expect(await dropped()).toEqual({ ...none, 'cause="limited"': 3 });
  });

  it('are those that find too many waiting', async () => {
    // The first is being sent, so that one more finds room.
    for (let object = 0; object < 256 + 1 + 5; object += 1) say(`p${object}`, 1);
    expect(await dropped()).toEqual({ ...none, 'cause="full"': 5 });
  });

  it('are those that the API server refused', async () => {
    api.server.script = () => ({ status: 403 });
    say('a', 2);
    await recorder.flush();
    expect(await dropped()).toEqual({ ...none, 'cause="failed"': 2 });
  });
});

describe('what a scrape tells of the wait for a turn', () => {
  const get = { method: 'GET', path: '/api/v1/pods' } as const;
  const waits = async () => [await scraped('api_wait_seconds_count'), await scraped('api_wait_seconds_sum')];

  it('is the time of each call, lane by lane, and none of the lease', async () => {
    const rest = restOf({ perSecondMax: 1, burst: 1, reviewsPerSecondMax: 1 });
    const calls = Array.from({ length: 3 }, () => rest.request(get));
    calls.push(rest.request({ ...get, lane: 'review' }), rest.request({ ...get, lane: 'lease' }));
    await clock.advance(2_000);
    await Promise.all(calls);
    expect(await waits()).toEqual([
      { 'lane="usual"': 3, 'lane="review"': 1 },
      { 'lane="usual"': 0 + 1 + 2, 'lane="review"': 0 },
    ]);
  });

  it('is also that of a call that gave up waiting', async () => {
    const rest = restOf({ perSecondMax: 1, burst: 1 });
    await rest.request(get);
    const late = rest.request({ ...get, timeoutMs: 500 });
    await Promise.all([expect(late).rejects.toMatchObject({ reason: 'Timeout' }), clock.advance(500)]);
    expect(await waits()).toEqual([
      { 'lane="usual"': 2, 'lane="review"': 0 },
      { 'lane="usual"': 0.5, 'lane="review"': 0 },
    ]);
  });

  it('is also that of a watch', async () => {
    const rest = restOf({ perSecondMax: 1, burst: 1 });
    api.server.script = () => ({ raw: '' });
    await rest.request(get);
    const watch = rest.stream({ path: get.path }).next();
    await clock.advance(1_000);
    await watch;
    expect((await waits())[1]).toEqual({ 'lane="usual"': 1, 'lane="review"': 0 });
  });
});

describe('what a scrape tells of the lag of status', () => {
  let writer: StatusWriter;
  let stored: KubeObject & { status?: unknown };
  let fault: Reply | null;

  beforeEach(() => {
    stored = pod('a', { resourceVersion: '10' });
    fault = null;
    api.server.script = ({ body }) => {
      if (fault !== null) return fault;
      const resourceVersion = String(Number(stored.metadata.resourceVersion) + 1);
      stored = { ...stored, status: body.status, metadata: { ...stored.metadata, resourceVersion } };
      return { status: 200, body: stored };
    };
    const rest = restOf({ perSecondMax: 10_000, burst: 10_000 });
    const onWritten = (lagMs: number) => metrics.statusWritten('pools', lagMs);
    writer = new StatusWriter({ rest, resource: PODS, log: silentLog, onFailure() {}, onWritten, clock });
  });

  const decide = (phase: string) => writer.write(stored, { phase });
  const written = (phase: string) => eventually(() => expect(stored.status).toEqual({ phase }));
  const told = async (writes: number, seconds: number) => {
    await eventually(async () =>
      expect(await scraped('status_lag_seconds_count')).toEqual({
        'kind="adapters"': 0,
        'kind="pools"': writes,
      }),
    );
    expect(await scraped('status_lag_seconds_sum')).toEqual({
      'kind="adapters"': 0,
      'kind="pools"': seconds,
    });
  };
  /** Two seconds are between writes of one object. */
  const firstWritten = async () => {
    decide('one');
    await written('one');
    await told(1, 0);
  };

  it('is the time since what was decided first and has not been written', async () => {
    await firstWritten();
    await clock.advance(500);
    decide('two');
    await clock.advance(500);
    decide('three');
    await clock.advance(1_000);
    await written('three');
    await told(2, 1.5);
  });

  it('goes on over writes that fail', async () => {
    fault = { status: 500 };
    decide('one');
    await writer.flush('ns/a');
    fault = null;
    await clock.advance(1_000);
    decide('one');
    await clock.advance(3_000);
    await written('one');
    await told(1, 4);
  });

  it('does not begin with what is there already', async () => {
    await firstWritten();
    decide('one');
    await clock.advance(1_000);
    decide('two');
    await clock.advance(1_000);
    await written('two');
    await told(2, 1);
  });

  it('ends where the status is decided back to what is there', async () => {
    await firstWritten();
    decide('two');
    decide('one');
    await clock.advance(10_000);
    decide('three');
    await written('three');
    await told(2, 0);
  });
});

describe('the table of metrics in operator/README.md', () => {
  it('has every one of them, in the words of its help', () => {
    const list = { list: () => [] };
    const queues = { adapters: { depth: 0 }, pools: { depth: 0 } };
    const leader = { leading: null };
    registerGauges(metrics.registry, {
      adapters: list,
      pools: list,
      leader,
      queues,
      fleet: { podsOf: () => [] },
      spool: { usedBytes: 0, pinnedBytes: 0, maxBytes: 0 },
      clock,
    });
    registerReflectors(metrics.registry, {});
    const registered = metrics.registry.getMetricsAsArray() as unknown as {
      name: string;
      help: string;
      labelNames: string[];
    }[];
    const rows = registered.flatMap(({ name, help, labelNames }) => {
      const own = name.match(/^lorikeet_operator_(.*)$/)?.[1];
      return own === undefined ? [] : [[own, labelNames.join(', '), help].join(' | ')];
    });
    const readme = readFileSync(join(import.meta.dirname, '../../../operator/README.md'), 'utf8');
    const table = readme.match(/\| metric .*\n\|[- |]*\n((?:\|.*\n)*)/)?.[1] ?? '';
    const written = table
      .trim()
      .split('\n')
      .map((row) => row.split('|').slice(1, -1))
      .map((cells) => cells.map((cell) => cell.replaceAll('`', '').trim()).join(' | '));
    expect(written.sort()).toEqual(rows.sort());
  });
});
