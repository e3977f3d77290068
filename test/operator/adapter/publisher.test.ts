import { afterEach, describe, expect, it } from 'vitest';
import type { Publication } from '../../../operator/adapter/publish/publication.ts';
import type { RevisionPublisher } from '../../../operator/adapter/publish/publisher.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { refusal } from '../../support/pod/fault.ts';
import { type Harness, startHarness } from './harness.ts';
import { loraAdapter, pushedAdapter } from './objects.ts';
import { digestOfSeed, Trainer } from './trainer.ts';

let harness: Harness;
let trainer: Trainer;
let publisher: RevisionPublisher;

async function start(pods?: Parameters<typeof startHarness>[0]): Promise<void> {
  harness = await startHarness(pods);
  trainer = new Trainer(harness);
  publisher = trainer.publisher;
  harness.apply(pushedAdapter('policy'));
}

afterEach(async () => {
  await harness.stop();
});

const stageEverywhere: Trainer['stageEverywhere'] = (...pushed) => trainer.stageEverywhere(...pushed);
const push: Trainer['push'] = (...pushed) => trainer.push(...pushed);

const served = () => harness.servers.map((server) => server.currentOf('policy'));
const revisions = () =>
  harness.servers.map((server) =>
    server.registry.state().adapters.flatMap((adapter) => adapter.revisions.map((item) => item.digest)),
  );
const reported = () =>
  harness.fleet.podsOf('lora/parrot').map(({ state }) => state?.adapters[0]?.current ?? null);
const code = (expected: string) => expect.objectContaining({ code: expected });

describe('a push', () => {
  it('is current in every pod when it is answered, and in status after', async () => {
    await start();
    const result = await push(1, { step: 5 });
    const digest = digestOfSeed(1);
    expect(served()).toEqual([digest, digest]);
    expect(result).toMatchObject({ revision: digest, step: 5, noop: false });
    expect(result.pods.map(({ state }) => state)).toEqual(['active', 'active']);
    expect(result.swap?.skewMs).toBeLessThanOrEqual(result.swap?.durationMs ?? 0);

    await harness.settle('policy');
    const status = harness.statusOf('policy');
    expect(status.currentRevision).toMatchObject({ digest, step: 5, pushedBy: 'trainer' });
    expect(harness.conditionOf('policy', 'Ready')?.status).toBe('True');
    expect(status.pushURL).toBe('http://push.test/v1/namespaces/lora/adapters/policy/revisions');
  });

  it('again changes nothing, whatever it says besides', async () => {
    await start();
    await push(1, { step: 5 });
    const activations = harness.servers[0]?.count('activate');
    const result = await push(1, { step: 5, ifMatch: digestOfSeed(9) });
    expect(result).toMatchObject({ noop: true, swap: null });
    expect(harness.servers[0]?.count('activate')).toBe(activations);
  });

  it('again with a newer step moves the step, in pods and for the pushes after it', async () => {
    await start();
    await push(1, { step: 5 });
    expect(await push(1, { step: 9, ifMatch: digestOfSeed(9) })).toMatchObject({ noop: true, step: 9 });
    await expect(push(2, { step: 8 })).rejects.toThrow(code('step_not_newer'));
    // The operator dies before it has written status.
    harness.forget();
    harness.world.term = 8;
    await expect(push(2, { step: 9 })).rejects.toThrow(code('step_not_newer'));
    await push(2, { step: 10 });
    expect(served()).toEqual([digestOfSeed(2), digestOfSeed(2)]);
  });

  it('whose adapter goes while it is under way leaves nothing in the pods', async () => {
    await start();
    const publication = await stageEverywhere(1);
    harness.adapters.clear();
    await harness.once('policy');
    await expect(publisher.publish(publication)).rejects.toThrow(code('adapter_not_found'));
    await expect.poll(revisions).toEqual([[], []]);
  });

  it('with a step that is not newer, or another current revision than expected, changes nothing', async () => {
    await start();
    await push(1, { step: 5 });
    await expect(push(2, { step: 5 })).rejects.toThrow(code('step_not_newer'));
    await expect(push(2, { ifMatch: digestOfSeed(7) })).rejects.toThrow(code('precondition_failed'));
    expect(served()).toEqual([digestOfSeed(1), digestOfSeed(1)]);
    await expect.poll(revisions).toEqual([[digestOfSeed(1)], [digestOfSeed(1)]]);
    await push(2, { step: 6, ifMatch: digestOfSeed(1) });
    expect(served()).toEqual([digestOfSeed(2), digestOfSeed(2)]);
  });

  it('that one pod refuses for what it is becomes current nowhere', async () => {
    await start();
    await push(1);
    harness.servers[1]?.fail('upload', refusal('non_finite'));
    await expect(push(2)).rejects.toThrow(code('non_finite'));
    expect(served()).toEqual([digestOfSeed(1), digestOfSeed(1)]);
    await harness.settle('policy');
    expect(harness.conditionOf('policy', 'Ready')?.status).toBe('True');
  });

  it('that one pod cannot take for the moment is brought to it later', async () => {
    await start();
    harness.servers[1]?.fail('upload', refusal('internal'));
    const result = await push(1);
    expect(result.pods.map(({ name, state }) => [name, state])).toEqual([
      ['pod-0', 'active'],
      ['pod-1', 'failed'],
    ]);
    await harness.settle('policy', () => served()[1] === digestOfSeed(1));
  });

  it('that no pod takes is refused', async () => {
    await start([{}]);
    harness.servers[0]?.fail('upload', refusal('no_capacity'));
    await expect(push(1)).rejects.toThrow(code('no_capacity'));
  });

  it('whose activation was lost on the way back is completed, and its retry is a no-op', async () => {
    await start([{}]);
    harness.servers[0]?.fail('activate', { kind: 'lostReply' });
    await expect(push(1)).rejects.toThrow(code('pod_failed'));
    expect(served()).toEqual([digestOfSeed(1)]);
    expect(await push(1)).toMatchObject({ noop: true });
  });

  it('that waits only for staging is activated all the same, before anybody looks at the adapter', async () => {
    await start();
    const result = await push(1, { wait: 'staged' });
    expect(result.pods.map(({ state }) => state)).toEqual(['staged', 'staged']);
    await expect.poll(served).toEqual([digestOfSeed(1), digestOfSeed(1)]);
  });

  it('does not blame a pod that is only slower than its trainer waits', async () => {
    await start();
    const publication = await stageEverywhere(1);
    const [first, second] = publication.staged;
    const late = { ...second, ok: false, error: new LorikeetError('timeout', 'too late') };
    await publisher.publish({ ...publication, staged: [first, late] as Publication['staged'] });
    expect(publisher.context('lora', 'policy').pods).toHaveLength(2);
  });

  it('beside a hung pod costs the pushes after it nothing', async () => {
    await start();
    await push(1);
    harness.servers[1]?.fail('upload', { kind: 'hang' }, 100);
    await push(2);
    const startMs = performance.now();
    const result = await push(3);
    expect(performance.now() - startMs).toBeLessThan(400);
    expect(result.pods.find(({ name }) => name === 'pod-1')).toMatchObject({ state: 'failed' });
  });

  it('is not staged again by a reconcile that runs meanwhile', async () => {
    await start();
    const publication = await stageEverywhere(1);
    await Promise.all([publisher.publish(publication), harness.once('policy')]);
    expect(harness.servers.map((server) => server.count('stage'))).toEqual([0, 0]);
  });

  it('and reconciling take turns: the pods end on the last of many pushes', async () => {
    await start();
    const reconciling = (async () => {
      for (let pass = 0; pass < 20; pass += 1) await harness.once('policy');
    })();
    for (let seed = 1; seed <= 6; seed += 1) await push(seed, { step: seed });
    await reconciling;
    await harness.settle('policy');
    expect(served()).toEqual([digestOfSeed(6), digestOfSeed(6)]);
    expect(harness.statusOf('policy').desiredRevision?.step).toBe(6);
    expect(harness.servers.map((server) => server.count('stage'))).toEqual([0, 0]);
  });
});

describe('after an operator that accepted pushes died', () => {
  it('its successor takes what pods have over an older status', async () => {
    await start();
    await push(1, { step: 1 });
    await harness.settle('policy');
    await push(2, { step: 2 });
    await expect.poll(reported).toEqual(served());
    // The operator dies before it has written status.
    harness.forget();
    harness.world.term = 8;

    await harness.settle('policy');

    expect(harness.statusOf('policy').desiredRevision).toMatchObject({
      digest: digestOfSeed(2),
      step: 2,
      rank: 8,
    });
    expect(harness.statusOf('policy').previousRevisions?.map(({ step }) => step)).toEqual([1]);
    expect(served()).toEqual([digestOfSeed(2), digestOfSeed(2)]);
    await expect(push(3, { step: 2 })).rejects.toThrow(code('step_not_newer'));
    await push(3, { step: 3 });
    expect(served()).toEqual([digestOfSeed(3), digestOfSeed(3)]);
  });

  it('a push that its successor cannot judge yet takes nothing from the pods', async () => {
    await start();
    await push(1);
    const again = await stageEverywhere(1);
    // The push keeps its lock until the pods have reported: no report may come after what follows.
    await harness.deps.mutexes.run('lora/policy', async () => {});
    harness.forget();
    harness.world.term = 8;
    Object.assign(harness.fleet.podsOf('lora/parrot')[1] as object, { state: null });
    Object.assign(harness.fleet, { followedMs: () => 0 });
    await expect(publisher.publish(again)).rejects.toThrow(code('no_pods'));
    expect(served()).toEqual([digestOfSeed(1), digestOfSeed(1)]);
  });

  it('its own late call is refused by pods', async () => {
    await start([{}]);
    await push(1);
    harness.world.term = 8;
    await push(2);
    harness.world.term = 7;
    await expect(push(3)).rejects.toThrow(code('pod_failed'));
    expect(served()).toEqual([digestOfSeed(2)]);
  });

  it('a pod that restarted is given the pushed revision by one that holds it', async () => {
    await start();
    await push(1);
    await harness.settle('policy');
    harness.forget();
    harness.emptySpool();
    await harness.servers[1]?.restart();
    await harness.settle('policy', () => served()[1] === digestOfSeed(1));
    expect(harness.servers[0]?.count('fetch')).toBe(1);
  });
});

describe('what pods hold is told', () => {
  it('also of an adapter that is suspended', async () => {
    await start();
    await push(1, { step: 5 });
    harness.apply(pushedAdapter('policy', { spec: { suspend: true } }));
    const { pods, desired } = publisher.held('lora', 'policy');
    expect(pods.map(({ name }) => name)).toEqual(harness.fleet.podsOf('lora/parrot').map(({ name }) => name));
    expect(desired).toEqual({ digest: digestOfSeed(1), step: 5 });
  });

  it('also of an adapter from elsewhere', async () => {
    await start();
    harness.adapters.set('lora/policy', loraAdapter('policy'));
    expect(publisher.held('lora', 'policy')).toMatchObject({
      servedName: 'policy',
      desired: null,
      earlier: [],
    });
  });

  it('of none that is not there', async () => {
    await start();
    expect(() => publisher.held('lora', 'other')).toThrow(code('adapter_not_found'));
  });
});

describe('a push is not even begun', () => {
  it.each([
    ['without an adapter', () => harness.adapters.clear(), 'adapter_not_found'],
    [
      'to an adapter from elsewhere',
      () => harness.adapters.set('lora/policy', loraAdapter('policy')),
      'not_push_source',
    ],
    [
      'to one that is being deleted',
      () =>
        harness.apply(pushedAdapter('policy', { metadata: { deletionTimestamp: '2026-06-01T00:00:00Z' } })),
      'adapter_deleting',
    ],
    [
      'to one that is suspended',
      () => harness.apply(pushedAdapter('policy', { spec: { suspend: true } })),
      'precondition_failed',
    ],
    [
      'to one without a finalizer',
      () => harness.apply(pushedAdapter('policy', { metadata: { finalizers: [] } })),
      'no_pods',
    ],
    ['without a pool', () => harness.pools.clear(), 'no_pods'],
    ['under a name that another has', () => harness.apply(olderWithName()), 'precondition_failed'],
    ['by one that does not lead', () => Object.assign(harness.world, { term: null }), 'not_leader'],
  ])('%s', async (_name, change, expected) => {
    await start([{}]);
    change();
    expect(() => publisher.context('lora', 'policy')).toThrow(code(expected));
  });

  it('while no pod answers', async () => {
    await start([{}]);
    await harness.servers[0]?.stop();
    await expect.poll(() => harness.fleet.podsOf('lora/parrot')[0]?.reachable).toBe(false);
    expect(() => publisher.context('lora', 'policy')).toThrow(code('no_pods'));
  });
});

function olderWithName() {
  const metadata = { creationTimestamp: '2020-01-01T00:00:00Z' };
  return pushedAdapter('older', { metadata, spec: { servedName: 'policy' } });
}
