import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { StateLog } from '../../../server/adapters/state-log.ts';
import { watchState } from '../../../server/admin/watch.ts';
import { type Bench, bench, put, stage } from './bench.ts';

/** A client that takes `room` writes and then no more until `drain`. */
class SlowClient extends EventEmitter {
  readonly written: string[] = [];
  room = Number.POSITIVE_INFINITY;

  writeHead(): void {}

  write(text: string): boolean {
    this.written.push(text);
    return this.written.length < this.room;
  }

  get states(): number {
    return this.written.filter((text) => text.startsWith('data:')).length;
  }
}

function watched(room?: number): Bench & { client: SlowClient } {
  const made = bench();
  const client = new SlowClient();
  if (room !== undefined) client.room = room;
  const log = new StateLog({ report: made.registry.report });
  watchState({ registry: made.registry, log }, client as unknown as ServerResponse);
  return { ...made, client };
}

describe('the log of what a pod says', () => {
  it('says the same as the pod after each change', async () => {
    const { engine, registry } = bench({ slots: 2, room: 4 });
    const log = new StateLog({ report: registry.report });
    const byName = ({ name: a }: { name: string }, { name: b }: { name: string }) => (a < b ? -1 : 1);
    const seen: unknown[] = [];
    const same = () => {
      log.invalidate();
      const { adapters, ...totals } = registry.state();
      const { adapters: logged, ...loggedTotals } = log.state;
      expect(loggedTotals).toEqual(totals);
      expect(logged.toSorted(byName)).toEqual(adapters.toSorted(byName));
      seen.push(...adapters.flatMap(({ revisions }) => revisions));
    };
    same();
    const first = await put(registry, 'a', 1, 7);
    same();
    await stage(registry, 'a', 1, 8);
    same();
    // Under a second name, whose leases and tier are the same.
    await put(registry, 'b', 1);
    same();
    engine.lease(first);
    same();
    await put(registry, 'a', 2);
    same();
    await registry.rollback({ name: 'a', to: first, inFlight: 'Finish' });
    same();
    engine.endLease(first);
    same();
    engine.lease(first);
    await registry.remove('a', null, null);
    same();
    await registry.remove('b', null, null);
    same();
    engine.endLease(first);
    same();
    // Four find room, in two slots; the first of them are dropped for later ones.
    for (const seed of [3, 4, 5, 6, 7, 8]) {
      await stage(registry, `c${seed}`, seed);
      same();
    }
    registry.markSeeded(null);
    same();
    const told = expect.arrayContaining([
      expect.objectContaining({ state: 'retired' }),
      expect.objectContaining({ leases: 1, tier: 'slot' }),
      expect.objectContaining({ tier: 'host' }),
      expect.objectContaining({ step: 8 }),
    ]);
    expect(seen).toEqual(told);
  });
});

describe('a watch', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('sends the state at once, and a burst of changes as one', () => {
    const { client, registry } = watched();
    expect(client.states).toBe(1);
    for (let i = 0; i < 100; i++) registry.markSeeded(null);
    vi.advanceTimersByTime(1000);
    expect(client.states).toBe(2);
    expect(client.written[1]).toContain('"seeded":true');
  });

  it('sends nothing to a client that does not read, then the latest alone', () => {
    const { client, registry } = watched(1);
    for (let i = 0; i < 50; i++) {
      registry.markSeeded(null);
      vi.advanceTimersByTime(60_000);
    }
    expect(client.written).toHaveLength(1);
    client.room = 10;
    client.emit('drain');
    vi.advanceTimersByTime(100);
    expect(client.states).toBe(2);
    expect(client.written[1]).toContain('"seeded":true');
  });

  it('shows that it is alive', () => {
    const { client } = watched();
    vi.advanceTimersByTime(30_000);
    expect(client.written.slice(1)).toEqual([': alive\n\n', ': alive\n\n', ': alive\n\n']);
  });

  it('stops with the connection', () => {
    const { client, registry } = watched();
    registry.markSeeded(null);
    client.emit('close');
    vi.advanceTimersByTime(60_000);
    expect(client.written).toHaveLength(1);
    expect(registry.subscribers).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });
});
