import { afterEach, expect, it } from 'vitest';
import { digest } from '../../support/pod/state.ts';
import { type Harness, startHarness } from './harness.ts';
import { loraAdapter, pushedAdapter } from './objects.ts';
import { digestOfSeed, Trainer } from './trainer.ts';

let harness: Harness;

afterEach(async () => {
  await harness.stop();
});

const served = (name: string) => harness.servers.map((server) => server.currentOf(name));
const pin = (revision: string | undefined) => ({ update: { revision } });

it('a kept revision of a pushed adapter is the desired one until its field is removed', async () => {
  harness = await startHarness();
  const trainer = new Trainer(harness);
  harness.apply(pushedAdapter('policy'));
  await trainer.push(1, { step: 1 });
  await trainer.push(2, { step: 2 });
  await harness.settle('policy');

  harness.apply(pushedAdapter('policy', { spec: pin(digestOfSeed(1)) }));
  await harness.settle('policy');
  expect(served('policy')).toEqual([digestOfSeed(1), digestOfSeed(1)]);
  expect(harness.conditionOf('policy', 'Ready')?.status).toBe('True');
  await expect(trainer.push(3, { step: 3 })).rejects.toMatchObject({ field: 'spec.update.revision' });

  // Nobody remembers but pods and status.
  harness.forget();
  harness.world.term = 8;
  await harness.settle('policy');
  expect(served('policy')).toEqual([digestOfSeed(1), digestOfSeed(1)]);

  harness.apply(pushedAdapter('policy'));
  await harness.settle('policy');
  expect(served('policy')).toEqual([digestOfSeed(1), digestOfSeed(1)]);
  await expect(new Trainer(harness).push(3, { step: 2 })).rejects.toMatchObject({ code: 'step_not_newer' });
  await new Trainer(harness).push(3, { step: 3 });
  expect(served('policy')).toEqual([digestOfSeed(3), digestOfSeed(3)]);
});

it('of an adapter from a store, what the store has comes back when the field is removed', async () => {
  harness = await startHarness();
  const first = harness.source.put(1);
  harness.apply(loraAdapter('sql'));
  await harness.settle('sql');
  const second = harness.source.put(2);
  const refreshed = { metadata: { annotations: { 'lorikeet.dev/refresh': '1' } } };
  harness.apply(loraAdapter('sql', refreshed));
  await harness.settle('sql');
  expect(served('sql')).toEqual([second, second]);

  harness.apply(loraAdapter('sql', { ...refreshed, spec: pin(first) }));
  await harness.settle('sql');
  expect(served('sql')).toEqual([first, first]);
  expect(harness.conditionOf('sql', 'Ready')?.status).toBe('True');
  harness.apply(loraAdapter('sql', refreshed));
  await harness.settle('sql', () => served('sql')[0] === second);
  await harness.settle('sql');
  expect(served('sql')).toEqual([second, second]);
});

it('one that nobody has is said so, and what is served stays', async () => {
  harness = await startHarness();
  const first = harness.source.put(1);
  harness.apply(loraAdapter('sql'));
  await harness.settle('sql');
  harness.apply(loraAdapter('sql', { spec: pin(digest('c')) }));
  await harness.settle('sql');
  expect(harness.conditionOf('sql', 'SourceResolved')).toMatchObject({
    status: 'False',
    reason: 'RevisionNotKept',
  });
  expect(served('sql')).toEqual([first, first]);
});
