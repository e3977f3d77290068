import { setImmediate } from 'node:timers/promises';
import { expect, it, vi } from 'vitest';
import type { Policy } from '../../../server/engine/port.ts';
import type { Generation } from '../../../server/openai/plan.ts';
import { takeInAll } from '../../../server/openai/sequences.ts';
import { goodAdapter } from '../../support/adapter-files.ts';
import { type Bench, bench, put, received, revisionsOf } from '../adapters/bench.ts';

const NEVER = new AbortController().signal;

async function running({ native, registry }: Bench, model: string, policy: Policy) {
  const asked = { model, expect: null, policy, generations: [{ prompt: [1] } as Generation] };
  const { sequences } = await takeInAll({ engine: native, adapters: registry.lookup }, asked, NEVER);
  return sequences[0] ?? [];
}

it('a move is told with the step that the revision had, also to who reads it when the revision is gone', async () => {
  const made = bench();
  const { engine, registry } = made;
  await put(registry, 'sql', 1, 1);
  const events = await running(made, 'sql', 'latest');
  const pushed: string[] = [];
  for (const step of [2, 3, 4, 5]) {
    pushed.push(await put(registry, 'sql', step, step));
    engine.step();
    await setImmediate();
  }
  expect(revisionsOf(registry, 'sql')).not.toHaveProperty(pushed[0] ?? '');
  engine.finish(engine.running[0] ?? 0);
  const moves = [];
  for await (const event of events) {
    if (event.type === 'moved') moves.push([event.revision, event.step]);
  }
  expect(moves).toEqual(pushed.map((digest, index) => [digest, index + 2]));
});

it.each([
  ['latest', 'Finish'],
  ['activation', 'Migrate'],
] as const)(
  'a revision that found no slot comes in for running requests that wait for it: %s, %s',
  async (policy, inFlight) => {
    const made = bench({ slots: 2 });
    const { engine, registry } = made;
    await put(registry, 'sql', 1);
    await put(registry, 'other', 2);
    await running(made, 'sql', policy);
    await running(made, 'other', 'pin');
    const content = await received(registry, goodAdapter(3));
    const { revision } = await registry.put(
      { name: 'sql', received: content, step: null, allowZeroEffect: false },
      { inFlight },
    );
    engine.step();
    const slotsOf = () => engine.snapshot().slots.map((slot) => slot.revision);
    expect(slotsOf()).not.toContain(revision);
    engine.finish(engine.running[1] ?? 0);
    await vi.waitFor(() => expect(slotsOf()).toContain(revision));
    engine.step();
    expect(engine.snapshot().slots).toContainEqual(expect.objectContaining({ revision, leases: 1 }));
  },
);
