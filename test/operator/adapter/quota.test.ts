import { afterEach, expect, it } from 'vitest';
import { goodAdapter } from '../../support/adapter-files.ts';
import { type Harness, startHarness } from './harness.ts';
import { loraAdapter, POOL_KEY, pushedAdapter } from './objects.ts';
import { digestOfSeed, Trainer } from './trainer.ts';

let harness: Harness;

afterEach(async () => {
  await harness.stop();
});

const SIZE = goodAdapter(1).tensors.length;
const exceeded = (detail: object) => expect.objectContaining({ code: 'quota_exceeded', ...detail });
const older = { metadata: { creationTimestamp: '2020-01-01T00:00:00Z' } };

async function start(quota: object, pods?: Parameters<typeof startHarness>[0]): Promise<void> {
  harness = await startHarness(pods);
  const pool = harness.pools.get(POOL_KEY);
  if (pool === undefined) throw new Error('there is no pool');
  harness.pools.set(POOL_KEY, { ...pool, spec: { ...pool.spec, tenancy: { quota } } } as typeof pool);
}

it('of adapters leaves the younger one out, before its source is asked, until there is room', async () => {
  await start({ adapters: 1 });
  harness.apply(loraAdapter('old', older));
  harness.apply(loraAdapter('young'));
  await harness.settle('old');
  await harness.once('young');
  expect(harness.conditionOf('young', 'Placed')).toMatchObject({
    status: 'False',
    reason: 'QuotaExceeded',
    message: 'Namespace lora may have 1 adapters in pool lora/parrot and has 1 adapters.',
  });
  expect(harness.source.fetches).toBe(1);
  harness.adapters.delete('lora/old');
  await harness.settle('young');
  expect(harness.conditionOf('young', 'Ready')?.status).toBe('True');
});

it('of bytes keeps what is too much out of the pods, and what is served in them', async () => {
  await start({ bytes: 2 * SIZE - 1 });
  harness.apply(loraAdapter('old', older));
  await harness.settle('old');
  harness.apply(loraAdapter('young'));
  await harness.settle('young', () => harness.conditionOf('young', 'Placed')?.reason === 'QuotaExceeded');
  expect(harness.servers.map((server) => server.currentOf('young'))).toEqual([null, null]);
  await harness.settle('old');
  expect(harness.conditionOf('old', 'Ready')?.status).toBe('True');
});

it('of bytes refuses a push before its body, and one whose size nobody knew after it', async () => {
  await start({ bytes: SIZE });
  harness.apply(pushedAdapter('policy'));
  const trainer = new Trainer(harness);
  trainer.publisher.admit('lora', 'policy', SIZE);
  expect(() => trainer.publisher.admit('lora', 'policy', SIZE + 1)).toThrow(
    exceeded({ field: 'tenancy.quota.bytes', expected: SIZE, actual: 0 }),
  );
  await expect(trainer.push(1, { bytes: SIZE + 1 })).rejects.toThrow(exceeded({}));
  const held = () => harness.servers.map((server) => server.registry.state().adapters);
  await expect.poll(held).toEqual([[], []]);
  expect(await trainer.push(1)).toMatchObject({ revision: digestOfSeed(1) });
  expect(await trainer.push(1)).toMatchObject({ noop: true });
});

it('of bytes counts an adapter once, on however many pods it is placed', async () => {
  await start({ bytes: SIZE });
  const placed = (mode: string, replicas?: number) => ({ spec: { placement: { mode, replicas } } });
  for (const [generation, placement] of [placed('Fixed', 1), placed('Fixed', 2), placed('All')].entries()) {
    harness.apply(loraAdapter('sql', { metadata: { generation }, ...placement }));
    await harness.settle('sql');
    expect(harness.conditionOf('sql', 'Ready')?.status).toBe('True');
  }
  expect(harness.statusOf('sql').pods).toMatchObject({ desired: 2, ready: 2 });
});

it('of bytes: what is beyond it takes no room from what is placed, whatever its priority', async () => {
  await start({ bytes: 2 * SIZE - 1 }, [{ hostBytes: Math.round(SIZE * 1.5) + 8 * 1024 }]);
  const placement = { mode: 'Fixed', replicas: 1 };
  harness.apply(loraAdapter('old', { ...older, spec: { placement } }));
  await harness.settle('old');
  harness.apply(loraAdapter('young', { spec: { placement: { ...placement, priority: 1 } } }));
  harness.source.put(2);
  await harness.settle('young', () => harness.conditionOf('young', 'Placed')?.reason === 'QuotaExceeded');
  await harness.settle('old');
  expect(harness.conditionOf('old', 'Ready')?.status).toBe('True');
  expect(harness.servers[0]?.currentOf('old')).not.toBeNull();
  const pool = harness.pools.get(POOL_KEY);
  if (pool) harness.pools.set(POOL_KEY, { ...pool, spec: { ...pool.spec, tenancy: {} } } as typeof pool);
  await harness.settle('young', () => harness.conditionOf('young', 'Placed')?.status === 'True');
});

it('of pushes says when the next one may come', async () => {
  await start({ pushesPerMinute: 2 });
  harness.apply(pushedAdapter('policy'));
  const { publisher } = new Trainer(harness);
  publisher.admit('lora', 'policy', SIZE);
  publisher.admit('lora', 'policy', SIZE);
  expect(() => publisher.admit('lora', 'policy', SIZE)).toThrow(
    exceeded({ field: 'tenancy.quota.pushesPerMinute', status: 429, retryAfterSeconds: 60 }),
  );
});
