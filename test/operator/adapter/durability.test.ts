import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Retryable } from '../../../operator/source/types.ts';
import { type Harness, startHarness } from './harness.ts';
import { pushedAdapter } from './objects.ts';
import { digestOfSeed, Trainer } from './trainer.ts';

let harness: Harness;
let trainer: Trainer;

const served = () => harness.servers.map((server) => server.currentOf('policy'));

beforeEach(async () => {
  harness = await startHarness();
  trainer = new Trainer(harness);
  const push = { durability: 'ObjectStore', objectStore: { uri: 's3://kept/policy' } };
  harness.apply(pushedAdapter('policy', { spec: { source: { push } } }));
});
afterEach(() => harness.stop());

describe('a push that is to be durable', () => {
  it('is in the archive when it is answered, under its digest', async () => {
    await trainer.push(1);
    const uri = `s3://kept/policy/${digestOfSeed(1).slice('sha256:'.length)}/`;
    expect(harness.source.kept.map((kept) => kept.uri)).toEqual([uri]);
  });

  it('is refused where the archive does not take it, and nothing changes', async () => {
    await trainer.push(1);
    harness.source.nextError = new Retryable('SourceUnreachable', 'The object store fails (500).');
    await expect(trainer.push(2)).rejects.toMatchObject({
      code: 'not_durable',
      message: expect.stringContaining('The object store fails (500).'),
    });
    expect(served()).toEqual([digestOfSeed(1), digestOfSeed(1)]);
    const held = () =>
      harness.servers.flatMap(({ registry }) => registry.state().adapters.flatMap((a) => a.revisions));
    await expect.poll(() => held().map(({ digest }) => digest)).toEqual(served());
  });

  it('is read from there when no pod and no spool holds it any more', async () => {
    await trainer.push(1);
    await harness.settle('policy');
    harness.source.put(1);
    harness.emptySpool();
    harness.forget();
    for (const server of harness.servers) await server.restart();

    await harness.settle('policy', () => served().every((digest) => digest === digestOfSeed(1)));
  });

  it('is lost where the archive has lost it as well, and no other content is taken for it', async () => {
    await trainer.push(1);
    await harness.settle('policy');
    harness.source.put(2);
    harness.emptySpool();
    for (const server of harness.servers) await server.restart();

    await harness.settle('policy', () => harness.conditionOf('policy', 'Ready')?.reason === 'RevisionLost');
    expect(served()).toEqual([null, null]);
  });
});
