import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../../operator/kube/log.ts';
import { type Change, Reflector } from '../../../operator/kube/reflector.ts';
import { type KubeObject, keyOf, PODS } from '../../../operator/kube/resource.ts';
import { Rest } from '../../../operator/kube/rest.ts';
import { eventually } from './eventually.ts';
import { FakeClock } from './fake-clock.ts';
import { PodsScript, pod } from './pods-script.ts';

describe('Reflector', () => {
  let api: PodsScript;
  let rest: Rest;
  let clock: FakeClock;
  let stop: AbortController;
  let told: string[];
  let onChange: (change: Change<KubeObject>) => void;
  let running: Promise<void>[];

  beforeEach(async () => {
    api = await PodsScript.start();
    clock = new FakeClock();
    rest = new Rest({ credentials: api.server.credentials, clock });
    stop = new AbortController();
    told = [];
    running = [];
    onChange = ({ type, object }) => told.push(`${type} ${keyOf(object)} ${object.metadata.uid}`);
  });

  afterEach(async () => {
    stop.abort();
    await Promise.all(running);
    await rest.close();
    await api.server.stop();
  });

  function start(): Reflector<KubeObject> {
    const reflector = new Reflector<KubeObject>({
      rest,
      resource: PODS,
      labelSelector: 'app=llama',
      log: silentLog,
      onChange: (change) => onChange(change),
      clock,
      random: () => 0.5,
    });
    running.push(reflector.run(stop.signal));
    return reflector;
  }

  async function startWatching(): Promise<Reflector<KubeObject>> {
    const reflector = start();
    await reflector.whenSynced();
    await eventually(() => expect(api.watches.size).toBe(1));
    return reflector;
  }

  function names(reflector: Reflector<KubeObject>): string[] {
    return reflector.list().map(({ metadata }) => metadata.name);
  }

  it('lists in pages and watches from there, with bookmarks and a timeout', async () => {
    api.pageSize = 2;
    for (const name of ['a', 'b', 'c', 'd', 'e']) api.put(pod(name));
    const reflector = await startWatching();
    expect(names(reflector)).toEqual(['a', 'b', 'c', 'd', 'e']);
    expect(api.requestsOf('list').map(({ query }) => query.get('limit'))).toEqual(['500', '500', '500']);
    const query = Object.fromEntries(api.requestsOf('watch')[0]?.query ?? []);
    expect(query).toMatchObject({
      allowWatchBookmarks: 'true',
      resourceVersion: '105',
      labelSelector: 'app=llama',
    });
    expect(Number(query.timeoutSeconds)).toBeGreaterThanOrEqual(240);
    expect(Number(query.timeoutSeconds)).toBeLessThanOrEqual(480);
  });

  it('follows the events of the watch', async () => {
    const a = api.put(pod('a'));
    const reflector = await startWatching();
    api.emit('ADDED', api.put(pod('b')));
    api.emit('MODIFIED', api.put(pod('a', { labels: { x: 'y' } })));
    api.emit('DELETED', { ...a, metadata: { ...a.metadata, resourceVersion: '110' } });
    await eventually(() => expect(names(reflector)).toEqual(['b']));
    expect(told).toEqual([
      'added ns/a uid-a',
      'added ns/b uid-b',
      'updated ns/a uid-a',
      'deleted ns/a uid-a',
    ]);
  });

  it('fills in what lists of built-in kinds leave out and leaves managed fields out', async () => {
    const { metadata } = pod('a');
    const bare = { metadata: { ...metadata, managedFields: [{}] } };
    api.pods = [bare as unknown as KubeObject];
    const reflector = await startWatching();
    expect(reflector.get('ns/a')).toEqual({ apiVersion: 'v1', kind: 'Pod', metadata });
  });

  it('hands out frozen objects', async () => {
    api.put(pod('a', { labels: { x: 'y' } }));
    const object = (await startWatching()).get('ns/a') as KubeObject;
    expect(() => Object.assign(object.metadata.labels ?? {}, { x: 'z' })).toThrow(TypeError);
  });

  const transient = { '500': { status: 500 }, '429': { status: 429 }, reset: 'reset' } as const;
  for (const [name, fault] of Object.entries(transient)) {
    it(`watches again from where it was after ${name} on the re-watch, within five seconds`, async () => {
      const reflector = await startWatching();
      api.emit('ADDED', api.put(pod('a')));
      await eventually(() => expect(names(reflector)).toEqual(['a']));
      api.faults.watch.push(fault);
      for (const response of api.watches) response.destroy();
      await eventually(() => expect(reflector.counts.failures).toBe(1));
      await clock.advance(2_000);
      await eventually(() => expect(reflector.counts.failures).toBe(2));
      await clock.advance(3_000);
      await eventually(() => expect(api.watches.size).toBe(1));
      expect(api.requestsOf('watch').at(-1)?.query.get('resourceVersion')).toBe('101');
      expect(reflector.counts.lists).toBe(1);
    });
  }

  it('backs off from one to five seconds while the server fails, and honours Retry-After', async () => {
    api.faults.list.push(...Array.from({ length: 9 }, () => ({ status: 500 })));
    api.faults.list.push({ status: 429, headers: { 'retry-after': '50' } });
    const reflector = start();
    await eventually(() => expect(reflector.counts.failures).toBe(1));
    const waitsMs: number[] = [];
    for (let failures = 2; failures <= 11; failures += 1) {
      const fromMs = clock.monotonicMs();
      while (reflector.counts.lists < failures) await clock.advance(250);
      waitsMs.push(clock.monotonicMs() - fromMs);
      if (failures < 11) await eventually(() => expect(reflector.counts.failures).toBe(failures));
    }
    expect(waitsMs).toEqual([750, 1500, 3000, ...Array(6).fill(3750), 50000]);
    await reflector.whenSynced();
  });

  const stale = {
    'HTTP 410': (api: PodsScript) => {
      api.faults.watch.push({ status: 410, body: { reason: 'Expired' } });
      for (const response of api.watches) response.destroy();
    },
    'an ERROR event': (api: PodsScript) => api.emit('ERROR', { code: 410, reason: 'Expired' }),
    'an ERROR event that is not 410': (api: PodsScript) =>
      api.emit('ERROR', { code: 500, metadata: { name: 'status', resourceVersion: '900' } }),
    'a line that is not JSON': (api: PodsScript) => api.line('{"type": "ADDED", "object": {'),
    'a line that is no event': (api: PodsScript) => api.line('null'),
    'an event without a resource version': (api: PodsScript) =>
      api.emit('ADDED', { metadata: { name: 'x' } }),
  };
  for (const [name, spoil] of Object.entries(stale)) {
    it(`lists again after ${name}`, async () => {
      api.put(pod('a'));
      const reflector = await startWatching();
      api.pods = [];
      api.put(pod('b'));
      spoil(api);
      await eventually(() => expect(reflector.counts.failures).toBe(1));
      await clock.advance(1_000);
      await eventually(() => expect(reflector.counts.failures + api.watches.size).toBeGreaterThanOrEqual(2));
      await clock.advance(2_000);
      await eventually(() => expect(names(reflector)).toEqual(['b']));
      expect(reflector.counts.misses).toBe(0);
    });
  }

  it('begins the list anew when the server forgets the page token', async () => {
    api.pageSize = 1;
    api.put(pod('a'));
    api.put(pod('b'));
    api.server.script = ((usual) => (request) => {
      const second = request.query.has('continue') && api.requestsOf('list').length === 2;
      return second ? { status: 410, body: { reason: 'Expired' } } : usual(request);
    })(api.server.script);
    const reflector = await startWatching();
    expect(names(reflector)).toEqual(['a', 'b']);
    expect(api.requestsOf('list')).toHaveLength(4);
  });

  it('notices a black-holed watch within 45 seconds and loses nothing', async () => {
    const reflector = await startWatching();
    api.faults.watch.push('silence');
    for (const response of api.watches) response.end();
    await eventually(() => expect(reflector.counts.failures).toBe(1));
    await clock.advance(2_000);
    await eventually(() => expect(api.requestsOf('watch')).toHaveLength(2));
    await clock.advance(43_000);
    expect(api.requestsOf('watch')).toHaveLength(2);
    await clock.advance(1_000);
    await eventually(() => expect(api.watches.size).toBe(1));
    expect(api.requestsOf('watch')[2]?.query.get('resourceVersion')).toBe('100');
    api.emit('ADDED', api.put(pod('a')));
    await eventually(() => expect(names(reflector)).toEqual(['a']));
  });

  it('keeps a watch that hears bookmarks', async () => {
    const reflector = await startWatching();
    for (let minute = 0; minute < 4; minute += 1) {
      const seen = api.server.requests.length;
      await clock.advance(40_000);
      api.resourceVersion += 1;
      api.bookmark();
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(api.server.requests).toHaveLength(seen);
    }
    expect(reflector.counts.watches).toBe(1);
  });

  it('tells a delete and an add when an object was made anew under the same name', async () => {
    api.put(pod('a'));
    await startWatching();
    api.emit('MODIFIED', api.put(pod('a', { uid: 'second' })));
    await eventually(() => expect(told.slice(1)).toEqual(['deleted ns/a uid-a', 'added ns/a second']));
  });

  it('does not let a late delete of the old object remove the new one', async () => {
    const old = api.put(pod('a'));
    const reflector = await startWatching();
    api.emit('ADDED', api.put(pod('a', { uid: 'second' })));
    api.emit('DELETED', { ...old, metadata: { ...old.metadata, resourceVersion: '120' } });
    api.emit('ADDED', api.put(pod('b')));
    await eventually(() => expect(names(reflector)).toEqual(['a', 'b']));
  });

  it('finds by a relist every five minutes what the watch did not tell, and counts it', async () => {
    api.put(pod('a'));
    api.put(pod('b'));
    const reflector = await startWatching();
    api.pods = api.pods.filter(({ metadata }) => metadata.name !== 'a');
    api.put(pod('b', { labels: { x: 'y' } }));
    api.put(pod('c'));
    for (let seconds = 0; seconds < 300; seconds += 20) {
      api.bookmark();
      await new Promise((resolve) => setTimeout(resolve, 5));
      await clock.advance(20_000);
    }
    await eventually(() => expect(names(reflector)).toEqual(['b', 'c']));
    expect(told.slice(2)).toEqual(['deleted ns/a uid-a', 'updated ns/b uid-b', 'added ns/c uid-c']);
    expect(reflector.counts).toMatchObject({ lists: 2, misses: 3 });
  });

  it('does not count a change as missed that the watch had no time to tell', async () => {
    const reflector = await startWatching();
    for (let seconds = 0; seconds < 280; seconds += 20) {
      api.bookmark();
      await new Promise((resolve) => setTimeout(resolve, 5));
      await clock.advance(20_000);
    }
    api.put(pod('a'));
    await clock.advance(20_000);
    await eventually(() => expect(names(reflector)).toEqual(['a']));
    expect(reflector.counts).toMatchObject({ lists: 2, misses: 0 });
  });

  it('outlives a handler that throws', async () => {
    onChange = () => {
      throw new Error('handler');
    };
    api.put(pod('a'));
    const reflector = await startWatching();
    api.emit('ADDED', api.put(pod('b')));
    await eventually(() => expect(names(reflector)).toEqual(['a', 'b']));
    expect(reflector.counts).toMatchObject({ handlerErrors: 2, failures: 0 });
  });

  it('refuses to run twice, and rejects whoever waits when it ends before the first list', async () => {
    api.faults.list.push('silence');
    const reflector = start();
    await expect(reflector.run(stop.signal)).rejects.toThrow('once');
    stop.abort(new Error('stopped'));
    await expect(reflector.whenSynced()).rejects.toThrow('stopped');
  });
});
