import { describe, expect, it } from 'vitest';
import type { Registry } from '../../../server/adapters/registry.ts';
import { ActivateReply } from '../../../server/contract/adapter-api.ts';
import { useAdmin } from './admin.ts';
import { bench, put, revisionsOf, stage } from './bench.ts';

const admin = useAdmin();
const code = (value: string) => expect.objectContaining({ code: value });
const currentOf = (registry: Registry) => registry.state().adapters[0]?.current;

/** Steps 1 to 3, the last one current. */
async function trained() {
  const made = bench();
  const [one, two, three] = [
    await put(made.registry, 'sql', 1, 1),
    await put(made.registry, 'sql', 2, 2),
    await put(made.registry, 'sql', 3, 3),
  ];
  return { ...made, one, two, three };
}

describe('a rollback', () => {
  it('makes the one before current again, and keeps all', async () => {
    const { registry, engine, two, three } = await trained();
    const before = Object.keys(revisionsOf(registry, 'sql'));
    expect(await registry.rollback({ name: 'sql' })).toMatchObject({ revision: two, previous: three });
    expect([currentOf(registry), engine.current.get('sql')]).toEqual([two, two]);
    expect(Object.keys(revisionsOf(registry, 'sql'))).toEqual(before);
  });

  it('asked again stays where it is', async () => {
    const { registry, two } = await trained();
    await registry.rollback({ name: 'sql' });
    expect(await registry.rollback({ name: 'sql' })).toMatchObject({ revision: two, previous: two });
  });

  it('undoes the next activation too', async () => {
    const { registry, two } = await trained();
    await registry.rollback({ name: 'sql' });
    await put(registry, 'sql', 4, 4);
    expect(await registry.rollback({ name: 'sql' })).toMatchObject({ revision: two });
  });

  it.each([
    ['a digest', ({ one }: { one: string }) => one],
    ['a step', () => 1],
  ])('goes to %s', async (_what, to) => {
    const made = await trained();
    await made.registry.rollback({ name: 'sql', to: to(made) });
    expect(currentOf(made.registry)).toBe(made.one);
  });

  it('lets a trainer push again the step that it took back', async () => {
    const { registry } = await trained();
    await registry.rollback({ name: 'sql' });
    expect(await put(registry, 'sql', 5, 3)).toBe(currentOf(registry));
  });

  it('does not go to what was never current', async () => {
    const { registry, three } = await trained();
    const staged = await stage(registry, 'sql', 4, 4);
    await expect(registry.rollback({ name: 'sql', to: staged })).rejects.toEqual(code('revision_not_found'));
    expect(currentOf(registry)).toBe(three);
  });

  it('has nowhere to go from the first revision', async () => {
    const { registry } = bench();
    await put(registry, 'sql', 1, 1);
    await expect(registry.rollback({ name: 'sql' })).rejects.toEqual(code('revision_not_found'));
  });

  it('of an unknown adapter is refused', async () => {
    await expect(bench().registry.rollback({ name: 'sql' })).rejects.toEqual(code('adapter_not_found'));
  });

  it('does not undo what came after the one that it is to undo', async () => {
    const { registry, two, three } = await trained();
    const late = registry.rollback({ name: 'sql', expectCurrent: two });
    await expect(late).rejects.toEqual(code('precondition_failed'));
    expect(currentOf(registry)).toBe(three);
  });

  it('of an operator that is not the latest is refused', async () => {
    const { registry, two, three } = await trained();
    await registry.activate({ name: 'sql', digest: two, fence: { term: 5, sequence: 2 } });
    const stale = registry.rollback({ name: 'sql', to: three, fence: { term: 5, sequence: 1 } });
    await expect(stale).rejects.toEqual(code('stale_fence'));
  });
});

describe('POST /lora/v1/adapters/{name}/rollback', () => {
  const json = (value: unknown) => ({
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(value),
  });

  it('answers as an activation does', async () => {
    const { call, registry } = await admin();
    const [a, b] = [await put(registry, 'sql', 1, 1), await put(registry, 'sql', 2, 2)];
    const reply = await call('POST', '/lora/v1/adapters/sql/rollback', json({ to: 1 }));
    expect(ActivateReply.parse(reply.body)).toMatchObject({ revision: a, previous: b });
  });

  it.each([
    ['a name', { to: 'before' }, 400, 'malformed_request'],
    ['a step below 0', { to: -1 }, 400, 'malformed_request'],
    ['a step that is not kept', { to: 9 }, 404, 'revision_not_found'],
  ])('refuses to go to %s', async (_what, body, status, refusal) => {
    const { call, registry } = await admin();
    await put(registry, 'sql', 1, 1);
    const reply = await call('POST', '/lora/v1/adapters/sql/rollback', json(body));
    expect(reply).toMatchObject({ status, body: { error: { code: refusal } } });
  });
});
