import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { refusal } from '../../support/pod/fault.ts';
import { type Harness, startHarness } from './harness.ts';
import { pushedAdapter } from './objects.ts';
import { digestOfSeed, Trainer } from './trainer.ts';

let harness: Harness;
let trainer: Trainer;

beforeEach(async () => {
  harness = await startHarness();
  trainer = new Trainer(harness);
  apply('Migrate');
});
afterEach(() => harness.stop());

function apply(inFlight: 'Finish' | 'Migrate'): void {
  harness.apply(pushedAdapter('policy', { spec: { update: { inFlight } } }));
}

const migrated = () => harness.servers.map(({ engine }) => engine.migrated);

describe('spec.update.inFlight', () => {
  it('is what pods are told of running requests where a revision takes the place of another', async () => {
    await trainer.push(1);
    await harness.settle('policy');
    expect(migrated()).toEqual([[], []]);
    await trainer.push(2);
    await harness.settle('policy');
    expect(migrated()).toEqual([[digestOfSeed(2)], [digestOfSeed(2)]]);
    apply('Finish');
    await trainer.push(3);
    expect(migrated()).toEqual([[digestOfSeed(2)], [digestOfSeed(2)]]);
  });

  it('holds for a pod that missed the push, and not for one that serves nothing yet', async () => {
    await trainer.push(1);
    harness.servers[1]?.fail('activate', refusal('internal'));
    await trainer.push(2);
    await harness.settle('policy', () => harness.servers[1]?.currentOf('policy') === digestOfSeed(2));
    expect(migrated()).toEqual([[digestOfSeed(2)], [digestOfSeed(2)]]);
    await harness.servers[1]?.restart();
    await harness.settle('policy', () => harness.servers[1]?.currentOf('policy') === digestOfSeed(2));
    expect(migrated()).toEqual([[digestOfSeed(2)], []]);
  });

  it('moves nothing by itself', async () => {
    await trainer.push(1);
    await harness.settle('policy');
    const calls = harness.servers.map((server) => server.calls.length);
    apply('Finish');
    await harness.settle('policy');
    expect(harness.servers.map((server) => server.calls.length)).toEqual(calls);
    expect(harness.conditionOf('policy', 'Ready')?.status).toBe('True');
  });
});
