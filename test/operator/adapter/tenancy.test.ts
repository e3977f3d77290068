import { afterEach, expect, it } from 'vitest';
import { finalize } from '../../../operator/adapter/finalize.ts';
import { reconcile } from '../../../operator/adapter/reconcile.ts';
import type { LoraAdapter } from '../../../operator/api/lora-adapter.ts';
import { reconcilePool } from '../../../operator/pool/reconcile.ts';
import { type Harness, startHarness } from './harness.ts';
import { loraAdapter, POOL_KEY } from './objects.ts';

let harness: Harness;

afterEach(async () => {
  await harness.stop();
});

const signal = new AbortController().signal;
const poolRef = { name: 'parrot', namespace: 'lora' };

/** Of another namespace than the pool. */
const tenant = (name: string, metadata: Partial<LoraAdapter['metadata']> = {}, spec: object = {}) =>
  loraAdapter(name, { metadata: { namespace: 'rl', ...metadata }, spec: { poolRef, ...spec } });

function grant(namespaces: object | undefined): void {
  const pool = harness.pools.get(POOL_KEY);
  if (pool === undefined) throw new Error('there is no pool');
  const tenancy = namespaces === undefined ? undefined : { namespaces };
  harness.pools.set(POOL_KEY, { ...pool, spec: { ...pool.spec, tenancy } } as typeof pool);
}

async function settle(key: string): Promise<void> {
  for (let pass = 0; pass < 20; pass += 1) {
    await reconcile(harness.deps, key, signal);
    await harness.source.whenIdle();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const conditionOf = (key: string, type: string) =>
  harness.adapters.get(key)?.status?.conditions?.find((condition) => condition.type === type);
const held = (name: string) => harness.servers.map((server) => server.currentOf(name) !== null);

it('an adapter of another namespace is let in by the pool alone, and taken out when that changes', async () => {
  harness = await startHarness();
  harness.apply(tenant('sql'));
  await settle('rl/sql');
  const refused = conditionOf('rl/sql', 'Placed');
  expect(refused).toMatchObject({ status: 'False', reason: 'NotPermitted' });
  expect(harness.source.fetches).toBe(0);

  grant({ from: 'Selector', selector: { matchLabels: { team: 'rl' } } });
  harness.world.labelsOf = () => 'unknown';
  const before = harness.adapters.get('rl/sql');
  await settle('rl/sql');
  expect(harness.adapters.get('rl/sql')).toBe(before);
  harness.world.labelsOf = (namespace) => (namespace === 'rl' ? { team: 'rl' } : null);
  await settle('rl/sql');
  expect(conditionOf('rl/sql', 'Ready')).toMatchObject({ status: 'True' });
  expect(held('sql')).toEqual([true, true]);

  // Nothing is destroyed on what is not known.
  harness.world.labelsOf = () => 'unknown';
  await reconcilePool(harness.poolDeps, POOL_KEY, signal);
  expect(held('sql')).toEqual([true, true]);
  harness.world.labelsOf = () => null;
  await reconcilePool(harness.poolDeps, POOL_KEY, signal);
  await settle('rl/sql');
  expect(held('sql')).toEqual([false, false]);
  expect(conditionOf('rl/sql', 'Placed')?.reason).toBe('NotPermitted');
  expect(harness.adapters.get('rl/sql')?.status?.pods?.desired).toBe(0);
});

it('a refused one is told the same whether or not the pool exists', async () => {
  harness = await startHarness();
  harness.apply(tenant('sql'));
  harness.apply(tenant('lost', {}, { poolRef: { name: 'nowhere', namespace: 'lora' } }));
  await settle('rl/sql');
  await settle('rl/lost');
  const words = (key: string) => ({ ...conditionOf(key, 'Placed'), lastTransitionTime: '' });
  expect(words('rl/lost')).toEqual({
    ...words('rl/sql'),
    message: words('rl/sql').message?.replace('lora/parrot', 'lora/nowhere'),
  });
});

it('a refused one has no claim to a name, and takes nothing along when it goes', async () => {
  harness = await startHarness();
  harness.apply(tenant('sql', { creationTimestamp: '2020-01-01T00:00:00Z' }));
  harness.apply(loraAdapter('sql'));
  await settle('rl/sql');
  await harness.settle('sql');
  expect(held('sql')).toEqual([true, true]);
  const going = tenant('sql', { deletionTimestamp: '2026-11-30T00:00:00Z' });
  await finalize(harness.deps, going, signal);
  expect(harness.adapters.has('rl/sql')).toBe(false);
  expect(held('sql')).toEqual([true, true]);
});

it('served names are unique in the pool across namespaces, without a word of whose they are', async () => {
  harness = await startHarness();
  grant({ from: 'All' });
  harness.apply(tenant('old', { creationTimestamp: '2020-01-01T00:00:00Z' }, { servedName: 'sql' }));
  harness.apply(loraAdapter('sql'));
  await settle('rl/old');
  await settle('lora/sql');
  expect(conditionOf('rl/old', 'Ready')?.status).toBe('True');
  expect(conditionOf('lora/sql', 'Placed')).toMatchObject({
    reason: 'ServedNameTaken',
    message: 'A LoraAdapter of another namespace is older and serves sql in pool parrot.',
  });
});

it('an operator that watches one namespace says that it cannot let in others', async () => {
  harness = await startHarness();
  grant({ from: 'All' });
  await reconcilePool({ ...harness.poolDeps, watchesAll: false }, POOL_KEY, signal);
  const ready = harness.pools.get(POOL_KEY)?.status?.conditions?.find(({ type }) => type === 'Ready');
  expect(ready).toMatchObject({ status: 'False', reason: 'TenancyUnavailable' });
});
