import { describe, expect, it } from 'vitest';
import { residencyOf } from '../../../server/adapters/pod-state.ts';
import { CONFIG, f32, factorName, goodAdapter, packSafetensors } from '../../support/adapter-files.ts';
import { brokenAdapters } from '../../support/broken-adapters.ts';
import { engineError } from '../../support/fake-engine.ts';
import { ADAPTER_BYTES, bench, HELD_BYTES, put, received, revisionsOf, stage } from './bench.ts';

const NEVER = new AbortController().signal;
const code = (value: string) => expect.objectContaining({ code: value });

describe('staging and activating', () => {
  it('brings a revision in without serving it, then serves it', async () => {
    const { engine, registry } = bench();
    const digest = await stage(registry, 'sql', 1, 7);
    expect(revisionsOf(registry, 'sql')).toEqual({ [digest]: 'staged/slot' });
    expect(registry.lookup.models()).toEqual([]);
    const reply = await registry.activate({ name: 'sql', digest });
    expect(reply).toMatchObject({ name: 'sql', revision: digest, previous: null, epoch: 1 });
    expect(engine.current.get('sql')).toBe(digest);
    expect(revisionsOf(registry, 'sql')).toEqual({ [digest]: 'current/slot' });
    expect(registry.lookup.models()).toMatchObject([
      { name: 'sql', revision: digest, step: 7, bytes: ADAPTER_BYTES },
    ]);
  });

  it('is idempotent by digest, and packs the same bytes once', async () => {
    const { engine, registry } = bench();
    const digest = await put(registry, 'sql', 1);
    const request = {
      name: 'sql',
      received: await received(registry, goodAdapter(1)),
      step: null,
      allowZeroEffect: false,
    };
    expect(await registry.stage(request)).toMatchObject({ revision: digest, existed: true });
    expect(await registry.activate({ name: 'sql', digest })).toMatchObject({ previous: digest, epoch: 1 });
    expect(engine.packed).toEqual([digest]);
    expect(registry.tier.usedBytes).toBe(HELD_BYTES);
  });

  it('does the same for 16 stagings of one digest at once', async () => {
    const { engine, registry } = bench({ room: 16 });
    const gate = Promise.withResolvers<void>();
    engine.gate = gate.promise;
    const all = Promise.all(Array.from({ length: 16 }, (_, i) => stage(registry, i % 2 ? 'a' : 'b', 1)));
    gate.resolve();
    expect(new Set(await all).size).toBe(1);
    expect(engine.packed).toHaveLength(1);
    expect(registry.tier.usedBytes).toBe(HELD_BYTES);
  });

  it('gives one content several names, and keeps it until the last is gone', async () => {
    const { registry } = bench();
    const digest = await put(registry, 'a', 1);
    expect(await put(registry, 'b', 1)).toBe(digest);
    expect(registry.tier.usedBytes).toBe(HELD_BYTES);
    await registry.remove('a', null, null);
    expect(revisionsOf(registry, 'b')).toEqual({ [digest]: 'current/slot' });
    await registry.remove('b', null, null);
    expect(registry.state()).toMatchObject({ adapters: [], used: { slots: 0, hostBytes: 0 } });
  });

  it('keeps the last K earlier current revisions, and those only staged', async () => {
    const { registry } = bench();
    const digests = [];
    for (const seed of [1, 2, 3, 4]) digests.push(await put(registry, 'sql', seed));
    const [, second = '', third = '', fourth = ''] = digests;
    const next = await stage(registry, 'sql', 5);
    expect(Object.keys(revisionsOf(registry, 'sql'))).toEqual([second, third, fourth, next]);
    await registry.activate({ name: 'sql', digest: second, keep: 0 });
    expect(revisionsOf(registry, 'sql')).toEqual({ [second]: 'current/slot', [next]: 'staged/slot' });
  });

  it('refuses the name of the base', async () => {
    const { registry } = bench();
    await expect(stage(registry, 'parrot', 1)).rejects.toEqual(code('invalid_name'));
    expect(registry.tier.usedBytes).toBe(0);
  });

  it('refuses to activate what is not here', async () => {
    const { registry } = bench();
    const digest = await stage(registry, 'sql', 1);
    await expect(registry.activate({ name: 'other', digest })).rejects.toEqual(code('revision_not_found'));
    await registry.remove('sql', digest, null);
    await expect(registry.activate({ name: 'sql', digest })).rejects.toEqual(code('revision_not_found'));
  });
});

describe('what the engine finds', () => {
  const adapters = new Map(brokenAdapters().map((adapter) => [adapter.name, adapter]));
  const broken = (name: string) => adapters.get(name) ?? goodAdapter();

  it.each([
    ['nan', 'model.layers.0.self_attn.q_proj.lora_A'],
    ['infinite', 'model.layers.1.self_attn.q_proj.lora_B'],
  ])('names the tensor of %s, and keeps nothing of it', async (name, field) => {
    const { registry } = bench();
    const current = await put(registry, 'sql', 1);
    const request = {
      name: 'sql',
      received: await received(registry, broken(name)),
      step: null,
      allowZeroEffect: false,
    };
    await expect(registry.put(request, {})).rejects.toMatchObject({ code: 'non_finite', field });
    expect(revisionsOf(registry, 'sql')).toEqual({ [current]: 'current/slot' });
    expect(registry.tier.usedBytes).toBe(HELD_BYTES);
  });

  it('names factors of the embedding as PEFT does', async () => {
    const { registry } = bench();
    const tensors = packSafetensors(
      new Map([
        [factorName(0, 'embed_tokens', 'A'), f32([8, 1024], () => 1)],
        [factorName(0, 'embed_tokens', 'B'), f32([256, 8], () => Number.NaN)],
      ]),
    );
    const config = Buffer.from(JSON.stringify({ ...CONFIG, target_modules: ['embed_tokens'] }));
    const request = {
      name: 'sql',
      received: await received(registry, { tensors, config }),
      step: null,
      allowZeroEffect: false,
    };
    await expect(registry.put(request, {})).rejects.toMatchObject({
      code: 'non_finite',
      field: 'model.embed_tokens.lora_embedding_B',
    });
  });

  it('refuses an adapter without effect, unless that is meant', async () => {
    const { engine, registry } = bench();
    const request = async (allowZeroEffect: boolean) => ({
      name: 'sql',
      received: await received(registry, broken('zero-effect')),
      step: 0,
      allowZeroEffect,
    });
    await expect(registry.put(await request(false), {})).rejects.toThrow(/x-lora-allow: zero_effect/);
    expect(engine.snapshot().slots).toEqual([]);
    expect((await registry.put(await request(true), {})).report.warnings).toEqual([
      'the adapter changes nothing',
    ]);
    await expect(registry.stage({ ...(await request(false)), name: 'other' })).rejects.toEqual(
      code('zero_effect'),
    );
    const [{ revision = '' } = {}] = registry.lookup.models();
    const again = registry.restage('other', revision, { step: 0, allowZeroEffect: false });
    await expect(again).rejects.toEqual(code('zero_effect'));
  });

  it('counts a scale of zero as no effect', async () => {
    const { registry } = bench();
    const files = goodAdapter(1, { ...CONFIG, lora_alpha: 0 });
    const request = {
      name: 'sql',
      received: await received(registry, files),
      step: null,
      allowZeroEffect: false,
    };
    await expect(registry.stage(request)).rejects.toEqual(code('zero_effect'));
  });

  it('checks, keeps and activates a revision that no slot is free for', async () => {
    const { engine, registry } = bench({ slots: 1 });
    const leased = await put(registry, 'a', 1);
    engine.lease(leased);
    const next = await put(registry, 'a', 2);
    expect(revisionsOf(registry, 'a')).toEqual({ [leased]: 'staged/slot', [next]: 'current/host' });
    expect(engine.current.get('a')).toBe(next);
    const files = broken('zero-effect');
    const zeros = {
      name: 'b',
      received: await received(registry, files),
      step: null,
      allowZeroEffect: false,
    };
    await expect(registry.stage(zeros)).rejects.toEqual(code('zero_effect'));
  });

  it('adds a name to bytes that it has, and repeats an activation, without a free slot', async () => {
    const { engine, registry } = bench({ slots: 1 });
    const evicted = await put(registry, 'a', 1);
    const leased = await put(registry, 'b', 2);
    engine.lease(leased);
    expect(await stage(registry, 'c', 1)).toBe(evicted);
    expect(revisionsOf(registry, 'c')).toEqual({ [evicted]: 'staged/host' });
    expect(await registry.activate({ name: 'a', digest: evicted })).toMatchObject({ epoch: 2 });
    expect(await registry.activate({ name: 'c', digest: evicted })).toMatchObject({ epoch: 3 });
    expect(revisionsOf(registry, 'c')).toEqual({ [evicted]: 'current/host' });
  });

  it('turns an engine that fails into an internal error without its text', async () => {
    const { engine, registry } = bench();
    engine.nextStageError = engineError('engine_failed', 'at 0x7ffe0123');
    const error = await stage(registry, 'a', 1).catch((thrown: unknown) => thrown);
    expect(error).toEqual(code('internal'));
    expect(JSON.stringify(error)).not.toContain('0x7ffe');
  });
});

describe('host tier and slots', () => {
  it('serves more adapters than slots: an evicted one comes back when asked for', async () => {
    const { engine, registry } = bench({ slots: 2 });
    const digests = [await put(registry, 'a', 1), await put(registry, 'b', 2), await put(registry, 'c', 3)];
    expect(residencyOf(registry.state())).toMatchObject({ slots: 2, resident: ['b', 'c'], host: ['a'] });
    await registry.lookup.waitForSlot('a', null, NEVER);
    expect(residencyOf(registry.state())).toMatchObject({ resident: ['a', 'c'], host: ['b'] });
    expect(engine.current.get('a')).toBe(digests[0]);
    await registry.lookup.waitForSlot('a', digests[0] ?? '', NEVER);
    expect(engine.packed).toHaveLength(4);
  });

  it('activates what was evicted after its staging', async () => {
    const { engine, registry } = bench();
    const digest = await stage(registry, 'a', 1);
    engine.evict(digest);
    await registry.activate({ name: 'a', digest });
    expect(engine.current.get('a')).toBe(digest);
  });

  it('drops the least recently used revision that is not current', async () => {
    const { engine, registry } = bench({ room: 3 });
    const old = await put(registry, 'a', 1);
    const current = await put(registry, 'a', 2);
    const other = await put(registry, 'b', 3);
    const next = await put(registry, 'b', 4);
    expect(revisionsOf(registry, 'a')).toEqual({ [current]: 'current/slot' });
    expect(revisionsOf(registry, 'b')).toEqual({ [other]: 'staged/slot', [next]: 'current/slot' });
    expect(engine.snapshot().slots.map(({ revision }) => revision)).not.toContain(old);
  });

  it('never drops a current or a leased revision for a newcomer', async () => {
    const { engine, registry } = bench({ room: 3 });
    const leased = await put(registry, 'a', 1);
    await put(registry, 'a', 2);
    await put(registry, 'b', 3);
    engine.lease(leased);
    await expect(received(registry, goodAdapter(4))).rejects.toThrow(
      expect.objectContaining({ code: 'no_capacity' }),
    );
    expect(Object.values(revisionsOf(registry, 'a'))).toEqual(['staged/slot', 'current/slot']);
    engine.endLease(leased);
    await put(registry, 'c', 4);
    expect(Object.keys(revisionsOf(registry, 'a'))).not.toContain(leased);
  });

  it('drops nothing for a newcomer that would not fit even then', async () => {
    const { registry } = bench({ room: 3 });
    const kept = await put(registry, 'a', 1);
    await put(registry, 'a', 2);
    expect(() => registry.tier.reserve(2.5 * HELD_BYTES)).toThrow(
      expect.objectContaining({ code: 'no_capacity' }),
    );
    expect(Object.keys(revisionsOf(registry, 'a'))).toContain(kept);
    registry.tier.reserve(2 * HELD_BYTES).release();
    expect(Object.keys(revisionsOf(registry, 'a'))).not.toContain(kept);
  });

  it('gives the room of a body back that is not kept', async () => {
    const { registry } = bench({ room: 2 });
    for (let i = 0; i < 5; i++) (await received(registry, goodAdapter(1))).reservation.release();
    expect(registry.tier.usedBytes).toBe(0);
    const first = await received(registry, goodAdapter(1));
    const second = await received(registry, goodAdapter(2));
    await expect(received(registry, goodAdapter(3))).rejects.toThrow(
      expect.objectContaining({ code: 'no_capacity' }),
    );
    first.reservation.release();
    first.reservation.release();
    expect(registry.tier.usedBytes).toBe(HELD_BYTES);
    second.reservation.release();
  });
});

describe('removal', () => {
  it('takes an adapter away, and waits for its leases', async () => {
    const { engine, registry } = bench();
    const digest = await put(registry, 'sql', 1);
    engine.lease(digest);
    expect(await registry.remove('sql', null, null)).toEqual({ name: 'sql', removed: [digest], leases: 1 });
    expect(engine.current.has('sql')).toBe(false);
    expect(revisionsOf(registry, 'sql')).toEqual({ [digest]: 'retired/slot' });
    expect(() => registry.lookup.resolve('sql')).toThrow(/sql/);
    expect(registry.tier.usedBytes).toBe(0);
    expect(await registry.remove('sql', null, null)).toMatchObject({ leases: 1 });
    engine.endLease(digest);
    expect(registry.state().adapters).toEqual([]);
    expect(await registry.remove('sql', null, null)).toEqual({ name: 'sql', removed: [], leases: 0 });
  });

  it('keeps the others of an adapter when one revision goes', async () => {
    const { registry } = bench();
    const first = await put(registry, 'sql', 1);
    const second = await put(registry, 'sql', 2);
    await registry.remove('sql', first, null);
    expect(revisionsOf(registry, 'sql')).toEqual({ [second]: 'current/slot' });
  });

  it('revives a retired revision that is staged again', async () => {
    const { engine, registry } = bench();
    const digest = await put(registry, 'sql', 1);
    engine.lease(digest);
    await registry.remove('sql', null, null);
    await put(registry, 'sql', 1);
    engine.endLease(digest);
    expect(revisionsOf(registry, 'sql')).toEqual({ [digest]: 'current/slot' });
  });
});
