import { setImmediate } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { takeIn } from '../../../server/openai/lease.ts';
import type { Generation } from '../../../server/openai/plan.ts';
import { bench, put, revisionsOf } from '../adapters/bench.ts';

const NEVER = new AbortController().signal;

it('a move is told with the step that the revision had, also to who reads it when the revision is gone', async () => {
  const { engine, native, registry } = bench();
  await put(registry, 'sql', 1, 1);
  const asked = { model: 'sql', expect: null, policy: 'latest' as const, generations: [{} as Generation] };
  const { leases } = await takeIn({ engine: native, adapters: registry.lookup }, asked, NEVER);
  const pushed: string[] = [];
  for (const step of [2, 3, 4, 5]) {
    pushed.push(await put(registry, 'sql', step, step));
    engine.step();
    await setImmediate();
  }
  expect(revisionsOf(registry, 'sql')).not.toHaveProperty(pushed[0] ?? '');
  engine.finish(engine.running[0] ?? 0);
  const moves = [];
  for await (const event of leases[0]?.events ?? []) {
    if (event.type === 'moved') moves.push([event.revision, event.step]);
  }
  expect(moves).toEqual(pushed.map((digest, index) => [digest, index + 2]));
});
