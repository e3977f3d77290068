import { setImmediate } from 'node:timers/promises';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Expectation } from '../../../server/contract/expectation.ts';
import type { Policy } from '../../../server/engine/port.ts';
import type { Generation } from '../../../server/openai/plan.ts';
import { takeInAll } from '../../../server/openai/sequences.ts';
import { type Bench, bench, put, stage } from '../adapters/bench.ts';

const NEVER = new AbortController().signal;
const minStep = (step: number): Expectation => ({ kind: 'min_step', step });
const revision = (digest: string): Expectation => ({ kind: 'revision', prefix: digest.slice(7) });

interface Asking {
  model?: string;
  waitMs?: number;
  signal?: AbortSignal;
  policy?: Policy;
}

/** Resolves to the revision on which a request with this expectation is taken in. */
async function ask(
  { native, registry }: Bench,
  expected: Expectation,
  { model = 'sql', waitMs = 60_000, signal = NEVER, policy = 'activation' }: Asking = {},
): Promise<string | undefined> {
  const request = {
    model,
    expect: { revision: expected, waitMs },
    policy,
    generations: [{ prompt: [1] } as Generation],
  };
  const { lora } = await takeInAll({ engine: native, adapters: registry.lookup }, request, signal);
  return lora?.revision;
}

async function untilWaiting({ registry }: Bench, requests = 1): Promise<void> {
  while (registry.subscribers < requests) await setImmediate();
}

afterEach(() => void vi.useRealTimers());

describe('a request that expects a revision', () => {
  it('waits until it is current, and not only staged', async () => {
    const made = bench();
    await put(made.registry, 'sql', 1, 1);
    const later = await stage(made.registry, 'sql', 2, 2);
    const asked = [ask(made, revision(later)), ask(made, minStep(2))];
    await untilWaiting(made, 2);
    await stage(made.registry, 'other', 3);
    await untilWaiting(made, 2);
    expect(made.engine.running).toEqual([]);
    await made.registry.activate({ name: 'sql', digest: later });
    expect(await Promise.all(asked)).toEqual([later, later]);
    expect(made.registry.subscribers).toBe(0);
  });

  it('is not answered by an older one that an activation brings in this moment', async () => {
    const made = bench();
    const older = await put(made.registry, 'sql', 1, 1);
    const newer = await put(made.registry, 'sql', 2, 2);
    const told = Promise.withResolvers<void>();
    made.engine.beforeActivated = () => told.promise;
    const activated = made.registry.activate({ name: 'sql', digest: older });
    while (made.engine.current.get('sql') !== older) await setImmediate();
    const asked = ask(made, minStep(2), { policy: 'latest' });
    await Promise.race([untilWaiting(made), asked]);
    expect(made.engine.running).toEqual([]);
    told.resolve();
    await activated;
    await made.registry.activate({ name: 'sql', digest: newer });
    expect(await asked).toBe(newer);
  });

  it('waits for an adapter that is not there yet', async () => {
    const made = bench();
    const asked = ask(made, minStep(1));
    await untilWaiting(made);
    expect(await put(made.registry, 'sql', 1, 1)).toBe(await asked);
  });

  it('is refused once its time has passed, and leaves nothing behind', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    const made = bench();
    const current = await put(made.registry, 'sql', 1, 1);
    const refused = expect(ask(made, minStep(2), { waitMs: 500 })).rejects.toMatchObject({
      status: 409,
      message: expect.stringContaining(current),
    });
    await vi.advanceTimersByTimeAsync(499);
    expect(made.registry.subscribers).toBe(1);
    await vi.advanceTimersByTimeAsync(2);
    await refused;
    expect(made.registry.subscribers).toBe(0);
  });

  it('is refused as unknown where there is no adapter', async () => {
    await expect(ask(bench(), minStep(1), { waitMs: 0 })).rejects.toMatchObject({ status: 404 });
  });

  it('waits no longer than its client', async () => {
    const made = bench();
    await put(made.registry, 'sql', 1);
    const client = new AbortController();
    const asked = ask(made, minStep(1), { signal: client.signal });
    await untilWaiting(made);
    client.abort(new Error('gone'));
    await expect(asked).rejects.toThrow('gone');
    expect(made.registry.subscribers).toBe(0);
  });

  it('is refused at once where as many wait as may', async () => {
    const made = bench();
    const first = Array.from({ length: 8 }, () => ask(made, minStep(1)));
    await untilWaiting(made, 8);
    await expect(ask(made, minStep(1))).rejects.toMatchObject({ code: 'no_capacity' });
    await put(made.registry, 'sql', 1, 1);
    expect(await Promise.all(first)).toHaveLength(8);
  });

  it('gets the one that it names after a rollback, but no step that was taken back', async () => {
    const made = bench();
    const first = await put(made.registry, 'sql', 1, 1);
    const second = await put(made.registry, 'sql', 2, 2);
    await made.registry.activate({ name: 'sql', digest: first });
    expect(await ask(made, revision(second), { waitMs: 0 })).toBe(second);
    await expect(ask(made, minStep(2), { waitMs: 0 })).rejects.toMatchObject({ status: 409 });
  });

  it('of a pinned one is refused at once where it is another', async () => {
    const made = bench();
    const first = await put(made.registry, 'sql', 1, 1);
    await put(made.registry, 'sql', 2, 2);
    const pinned = { model: 'sql@step-1' };
    expect(await ask(made, revision(first), pinned)).toBe(first);
    await expect(ask(made, minStep(2), pinned)).rejects.toMatchObject({ status: 409 });
  });

  it('runs on a later one where its own is superseded while it waits for a slot', async () => {
    const made = bench({ slots: 1 });
    await put(made.registry, 'other', 1);
    const held = made.engine.snapshot().slots[0]?.revision ?? '';
    made.engine.lease(held);
    await put(made.registry, 'sql', 2, 2);
    const asked = ask(made, minStep(2));
    await setImmediate();
    const later = await stage(made.registry, 'sql', 3, 3);
    await made.registry.activate({ name: 'sql', digest: later, keep: 0 });
    made.engine.endLease(held);
    expect(await asked).toBe(later);
  });
});
