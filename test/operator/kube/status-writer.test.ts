import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../../operator/kube/log.ts';
import { type KubeObject, PODS } from '../../../operator/kube/resource.ts';
import { Rest } from '../../../operator/kube/rest.ts';
import { StatusWriter } from '../../../operator/kube/status-writer.ts';
import { eventually } from './eventually.ts';
import { FakeClock } from './fake-clock.ts';
import { pod } from './pods-script.ts';
import { type Received, type Reply, ScriptedServer } from './scripted-server.ts';

type WithStatus = KubeObject & { status?: unknown };

describe('StatusWriter', () => {
  let server: ScriptedServer;
  let rest: Rest;
  let clock: FakeClock;
  let writer: StatusWriter;
  let stored: WithStatus;
  let failures: string[];
  let fault: Reply | null;

  beforeEach(async () => {
    server = await ScriptedServer.start(update);
    clock = new FakeClock();
    rest = new Rest({ credentials: server.credentials, clock });
    stored = pod('a', { resourceVersion: '10' });
    failures = [];
    fault = null;
    const onFailure = (key: string, error: unknown) =>
      failures.push(`${key} ${(error as { status: number }).status}`);
    writer = new StatusWriter({ rest, resource: PODS, log: silentLog, onFailure, clock });
  });

  afterEach(async () => {
    await rest.close();
    await server.stop();
  });

  /** The API server's rule: a write must name the version that it replaces. */
  function update({ method, path, body }: Received): Reply {
    if (fault !== null) return fault;
    if (method !== 'PUT' || path !== '/api/v1/namespaces/ns/pods/a/status') return { status: 404 };
    if (body.metadata.resourceVersion !== stored.metadata.resourceVersion) return { status: 409 };
    touch({ status: body.status });
    return { status: 200, body: stored };
  }

  function touch(change: Partial<WithStatus>): void {
    const resourceVersion = String(Number(stored.metadata.resourceVersion) + 1);
    stored = { ...stored, ...change, metadata: { ...stored.metadata, resourceVersion } };
  }

  async function settled(): Promise<void> {
    await writer.flushAll();
  }

  it('has a few writes under way at a time, and of what waits writes only the last', async () => {
    const gate = Promise.withResolvers<void>();
    const bodies: { name: string; status: unknown }[] = [];
    const slow = {
      request: async ({ body }: { body: { metadata: { name: string }; status: unknown } }) => {
        bodies.push({ name: body.metadata.name, status: body.status });
        await gate.promise;
        return { metadata: { resourceVersion: '2' } };
      },
    } as unknown as Rest;
    const many = new StatusWriter({ rest: slow, resource: PODS, log: silentLog, onFailure() {}, clock });
    const objects = Array.from({ length: 100 }, (_, index) => pod(`p${index}`));
    for (const phase of ['one', 'two']) for (const object of objects) many.write(object, { phase });
    expect(bodies.length).toBeLessThan(20);
    gate.resolve();
    await eventually(() => expect(new Set(bodies.map(({ name }) => name)).size).toBe(100));
    expect(bodies.at(-1)).toEqual({ name: 'p99', status: { phase: 'two' } });
    expect(bodies).toHaveLength(100);
  });

  it('writes the first status at once', async () => {
    writer.write(stored, { phase: 'one' });
    await eventually(() => expect(stored.status).toEqual({ phase: 'one' }));
  });

  it('writes at most once per two seconds, and the last one wins', async () => {
    const old = stored;
    writer.write(old, { phase: '0' });
    await eventually(() => expect(stored.status).toEqual({ phase: '0' }));
    for (let tenth = 1; tenth <= 50; tenth += 1) {
      writer.write(stored, { phase: String(tenth) });
      await clock.advance(100);
    }
    await clock.advance(2_000);
    await eventually(() => expect(stored.status).toEqual({ phase: '50' }));
    expect(writer.writes).toBeLessThanOrEqual(4);
    expect(failures).toEqual([]);
  });

  it('writes bad news at once, and good news in its time', async () => {
    const isWorse = (before: unknown, after: unknown) =>
      Object(before).phase === 'good' && Object(after).phase === 'bad';
    const telling = new StatusWriter({
      rest,
      resource: PODS,
      log: silentLog,
      onFailure() {},
      clock,
      isWorse,
    });
    telling.write(stored, { phase: 'good' });
    await eventually(() => expect(stored.status).toEqual({ phase: 'good' }));
    telling.write(stored, { phase: 'bad' });
    await eventually(() => expect(stored.status).toEqual({ phase: 'bad' }));
    telling.write(stored, { phase: 'good' });
    await clock.advance(1_900);
    expect(telling.writes).toBe(2);
    await clock.advance(200);
    await eventually(() => expect(stored.status).toEqual({ phase: 'good' }));
  });

  it('writes again soon after somebody else did', async () => {
    const cached = stored;
    touch({ status: { phase: 'theirs' } });
    writer.write(cached, { phase: 'ours' });
    await settled();
    writer.write(stored, { phase: 'ours' });
    await clock.advance(250);
    await eventually(() => expect(stored.status).toEqual({ phase: 'ours' }));
  });

  it('writes nothing when the status is there already, whatever the order of its keys', async () => {
    stored.status = { a: 1, b: [2] };
    writer.write(stored, { b: [2], a: 1, c: undefined });
    await settled();
    expect(server.requests).toHaveLength(0);
  });

  it('takes no notice of a cache that has not seen its own last write', async () => {
    const cached = stored;
    writer.write(cached, { phase: 'one' });
    await settled();
    writer.write(cached, { phase: 'one' });
    await clock.advance(3_000);
    expect(writer.writes).toBe(1);
    writer.write(cached, { phase: 'two' });
    await settled();
    expect(stored.status).toEqual({ phase: 'two' });
    expect(failures).toEqual([]);
  });

  it('goes back to an earlier status although the cache still shows that one', async () => {
    stored.status = { phase: 'old' };
    const cached = stored;
    writer.write(cached, { phase: 'new' });
    await settled();
    writer.write(cached, { phase: 'old' });
    await settled();
    expect(stored.status).toEqual({ phase: 'old' });
  });

  it('drops what is pending when the status is back where it was', async () => {
    writer.write(stored, { phase: 'one' });
    await eventually(() => expect(stored.status).toEqual({ phase: 'one' }));
    writer.write(stored, { phase: 'two' });
    writer.write(stored, { phase: 'one' });
    await clock.advance(5_000);
    expect(writer.writes).toBe(1);
  });

  it('gives way to whoever wrote in between, and has the object computed anew', async () => {
    const cached = stored;
    touch({ status: { phase: 'theirs' } });
    writer.write(cached, { phase: 'ours' });
    await settled();
    expect(failures).toEqual(['ns/a 409']);
    expect(stored.status).toEqual({ phase: 'theirs' });
    writer.write(stored, { phase: 'ours' });
    await settled();
    expect(stored.status).toEqual({ phase: 'ours' });
  });

  it('repairs a status that somebody changed', async () => {
    writer.write(stored, { phase: 'ours' });
    await settled();
    touch({ status: { phase: 'theirs' } });
    writer.write(stored, { phase: 'ours' });
    await settled();
    expect(stored.status).toEqual({ phase: 'ours' });
  });

  it('does not ask for a deleted object to be looked at again', async () => {
    fault = { status: 404 };
    writer.write(stored, { phase: 'one' });
    await settled();
    expect(failures).toEqual([]);
  });

  it('tries ever more rarely while writing fails', async () => {
    fault = { status: 500 };
    const triedAtMs: number[] = [];
    for (let second = 0; second < 120; second += 1) {
      const before = server.requests.length;
      writer.write(stored, { phase: 'one' });
      await clock.advance(1_000);
      await new Promise((resolve) => setTimeout(resolve, 2));
      if (server.requests.length > before) triedAtMs.push(second);
    }
    expect(triedAtMs.length).toBeGreaterThanOrEqual(4);
    expect(triedAtMs.length).toBeLessThanOrEqual(7);
    expect(failures).toHaveLength(triedAtMs.length);
  });

  it('writes what waits when it is told to flush', async () => {
    writer.write(stored, { phase: 'one' });
    writer.write(stored, { phase: 'two' });
    await writer.flush('ns/a');
    expect(stored.status).toEqual({ phase: 'two' });
    await writer.flush('ns/unknown');
  });

  it('starts over for a new object of the same name', async () => {
    writer.write(stored, { phase: 'one' });
    await settled();
    stored = pod('a', { uid: 'second', resourceVersion: '7' });
    writer.write(stored, { phase: 'one' });
    await eventually(() => expect(stored.status).toEqual({ phase: 'one' }));
  });
});
