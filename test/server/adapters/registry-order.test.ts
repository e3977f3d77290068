import { describe, expect, it } from 'vitest';
import { PodState } from '../../../server/contract/adapter-api.ts';
import { bench, HELD_BYTES, put, stage } from './bench.ts';

const fence = (term: number, sequence: number) => ({ term, sequence });
const code = (value: string) => expect.objectContaining({ code: value });

describe('order', () => {
  it('refuses an operator of an earlier term, for every change', async () => {
    const { registry } = bench();
    const digest = await stage(registry, 'sql', 1);
    await registry.activate({ name: 'sql', digest, fence: fence(5, 1) });
    const stale = code('stale_fence');
    await expect(registry.activate({ name: 'sql', digest, fence: fence(4, 9) })).rejects.toEqual(stale);
    await expect(registry.remove('sql', null, fence(4, 9))).rejects.toEqual(stale);
    expect(() => registry.requireFence(fence(4, 9))).toThrow(
      expect.objectContaining({ code: 'stale_fence' }),
    );
    expect(() => registry.markSeeded(fence(4, 9))).toThrow();
    expect(registry.seeded).toBe(false);
  });

  it('never goes back within an adapter, and takes each fence for one revision', async () => {
    const { registry } = bench();
    const [a, b] = [await stage(registry, 'sql', 1), await stage(registry, 'sql', 2)];
    await registry.activate({ name: 'sql', digest: a, fence: fence(5, 2) });
    await expect(registry.activate({ name: 'sql', digest: b, fence: fence(5, 1) })).rejects.toEqual(
      code('stale_fence'),
    );
    await expect(registry.activate({ name: 'sql', digest: b, fence: fence(5, 2) })).rejects.toEqual(
      code('stale_fence'),
    );
    await expect(registry.remove('sql', null, fence(5, 1))).rejects.toEqual(code('stale_fence'));
    await registry.activate({ name: 'sql', digest: a, fence: fence(5, 2) });
    await registry.activate({ name: 'sql', digest: b, fence: fence(6, 0) });
    expect(registry.state().adapters[0]).toMatchObject({ current: b, fence: fence(6, 0) });
  });

  it('lets the operator take over again after a change by hand', async () => {
    const { registry } = bench();
    const wanted = await stage(registry, 'sql', 1);
    await registry.activate({ name: 'sql', digest: wanted, fence: fence(5, 2) });
    await put(registry, 'sql', 2);
    expect(registry.state().adapters[0]?.fence).toBeNull();
    await registry.activate({ name: 'sql', digest: wanted, fence: fence(5, 2) });
    expect(registry.state().adapters[0]).toMatchObject({ current: wanted, fence: fence(5, 2) });
  });

  it('compares and swaps', async () => {
    const { registry } = bench();
    const [a, b] = [await stage(registry, 'sql', 1), await stage(registry, 'sql', 2)];
    await registry.activate({ name: 'sql', digest: a, expectCurrent: null });
    await expect(registry.activate({ name: 'sql', digest: b, expectCurrent: null })).rejects.toEqual(
      code('precondition_failed'),
    );
    await registry.activate({ name: 'sql', digest: b, expectCurrent: a });
    await expect(registry.activate({ name: 'sql', digest: b, expectCurrent: a })).resolves.toMatchObject({
      revision: b,
    });
  });

  it('lets one of two swaps from the same revision win', async () => {
    const { registry } = bench();
    await put(registry, 'sql', 1);
    const [a, b] = [await stage(registry, 'sql', 2), await stage(registry, 'sql', 3)];
    const from = registry.state().adapters[0]?.current ?? null;
    const swaps = [a, b].map((digest) => registry.activate({ name: 'sql', digest, expectCurrent: from }));
    expect((await Promise.allSettled(swaps)).map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
  });

  it('refuses a step that is not newer, except for the same content', async () => {
    const { registry } = bench();
    await put(registry, 'sql', 1, 10);
    await expect(put(registry, 'sql', 2, 10)).rejects.toEqual(code('step_not_newer'));
    await expect(put(registry, 'sql', 2, 9)).rejects.toEqual(code('step_not_newer'));
    await put(registry, 'sql', 1, 10);
    await put(registry, 'sql', 1, 12);
    expect(registry.lookup.models()[0]?.step).toBe(12);
    await put(registry, 'sql', 2, 13);
    await put(registry, 'sql', 3);
    expect(registry.lookup.models()[0]?.step).toBeNull();
  });

  it('serialises many changes of many names to what each name was told last', async () => {
    const { engine, registry } = bench({ slots: 4, room: 64 });
    const changes = Array.from({ length: 60 }, (_, i) => put(registry, `a${i % 5}`, 1 + (i % 7)));
    const digests = await Promise.all(changes);
    for (const i of [0, 1, 2, 3, 4]) expect(engine.current.get(`a${i}`)).toBe(digests[55 + i]);
    expect(registry.state().adapters.map(({ current }) => current)).toEqual(digests.slice(55));
  });
});

describe('what a request may name', () => {
  it('resolves the base, an adapter, a step and a prefix', async () => {
    const { registry } = bench();
    const first = await put(registry, 'sql', 1, 41);
    const second = await put(registry, 'sql', 2, 42);
    expect(registry.lookup.resolve('parrot')).toEqual({ kind: 'base' });
    expect(registry.lookup.resolve('sql')).toEqual({ kind: 'adapter', name: 'sql' });
    const pinned = { kind: 'revision', name: 'sql', digest: first, step: 41 };
    expect(registry.lookup.resolve('sql@step-41')).toEqual(pinned);
    expect(registry.lookup.resolve(`sql@${first.slice(7, 13)}`)).toEqual(pinned);
    expect(registry.lookup.resolve(`sql@${first}`)).toEqual(pinned);
    expect(registry.lookup.describe('sql', second)).toEqual({ name: 'sql', revision: second, step: 42 });
  });

  it.each([
    ['unknown', 'adapter_not_found'],
    ['', 'adapter_not_found'],
    ['staged', 'adapter_not_found'],
    ['sql@step-43', 'revision_not_found'],
    ['sql@abcde', 'revision_not_found'],
    ['sql@', 'revision_not_found'],
    ['sql@000000', 'revision_not_found'],
    ['../../etc/passwd', 'adapter_not_found'],
    ['__proto__', 'adapter_not_found'],
  ])('refuses %j and never answers with the base', async (model, refusal) => {
    const { registry } = bench();
    await put(registry, 'sql', 1, 41);
    await stage(registry, 'staged', 2);
    expect(() => registry.lookup.resolve(model)).toThrow(expect.objectContaining({ code: refusal }));
  });
});

describe('state', () => {
  it('fits the contract and tells listeners of each change', async () => {
    const { registry } = bench();
    let changes = 0;
    const end = registry.subscribe(() => (changes += 1));
    const digest = await put(registry, 'sql', 1, 3);
    registry.markSeeded(null);
    expect(changes).toBeGreaterThanOrEqual(2);
    const state = PodState.parse(registry.state());
    expect(state).toMatchObject({ seeded: true, epoch: 1, used: { slots: 1, hostBytes: HELD_BYTES } });
    const revision = {
      digest,
      step: 3,
      state: 'current',
      tier: 'slot',
      leases: 0,
      rank: 8,
      modules: ['q_proj', 'v_proj'],
    };
    expect(state.adapters).toMatchObject([
      { name: 'sql', current: digest, fence: null, revisions: [revision] },
    ]);
    end();
    const seen = changes;
    await registry.remove('sql', null, null);
    expect(changes).toBe(seen);
  });

  it('is another boot in another process', () => {
    expect(bench().registry.bootId).not.toBe(bench().registry.bootId);
  });
});
