import { afterEach, expect, it } from 'vitest';
import { refusal } from '../../support/pod/fault.ts';
import { type Harness, startHarness } from './harness.ts';
import { pushedAdapter } from './objects.ts';
import { digestOfSeed, Trainer } from './trainer.ts';

let harness: Harness;

afterEach(async () => {
  await harness.stop();
});

it('suspended in the middle of a swap, each pod goes on serving what it serves', async () => {
  harness = await startHarness();
  harness.apply(pushedAdapter('policy'));
  const trainer = new Trainer(harness);
  await trainer.push(1);
  await harness.settle('policy');
  harness.servers[1]?.fail('activate', refusal('internal'));
  await trainer.push(2);
  const served = () => harness.servers.map((server) => server.currentOf('policy'));
  expect(served()).toEqual([digestOfSeed(2), digestOfSeed(1)]);
  harness.apply(pushedAdapter('policy', { spec: { suspend: true } }));
  await harness.settle('policy');
  expect(served()).toEqual([digestOfSeed(2), digestOfSeed(1)]);
});
