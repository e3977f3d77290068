import { describe, expect, it } from 'vitest';
import { Names, readName, type Version } from '../../../server/bridge/names.ts';

describe("a trainer's name", () => {
  it.each<[name: string, adapter: string, step: number | null]>([
    ['trl-policy-v7', 'trl-policy', 7],
    ['policy@12', 'policy', 12],
    ['policy-v0', 'policy', 0],
    ['Qwen/Qwen3-4B-v3', 'Qwen/Qwen3-4B', 3],
    ['a-v1-v2', 'a-v1', 2],
    ['policy', 'policy', null],
    ['policy_7', 'policy_7', null],
    ['policy-7', 'policy-7', null],
    ['policyv7', 'policyv7', null],
    ['-v7', '-v7', null],
    [`policy-v${'9'.repeat(16)}`, `policy-v${'9'.repeat(16)}`, null],
    // Of the base model.
    ['llama-v2', 'llama-v2', null],
  ])('%s is %s at %s', (name, adapter, step) => {
    expect(readName(name, 'llama-v2')).toEqual({ adapter, step });
  });
});

describe('names', () => {
  const version = (name: string, adapter = 'policy'): Version => ({
    name,
    adapter,
    served: adapter,
    revision: `sha256:${'a'.repeat(64)}`,
    step: 1,
    loadedAt: 0,
  });
  const named = (versions: Version[]) => versions.map(({ name }) => name);

  it('are the last ones of each adapter', () => {
    const names = new Names(2);
    names.add(version('other', 'other'));
    expect(['a', 'b', 'c'].map((name) => named(names.add(version(name))))).toEqual([[], [], ['a']]);
    expect(named(names.all())).toEqual(['other', 'b', 'c']);
    expect([names.find('a'), names.find('b')?.name]).toEqual([undefined, 'b']);
  });

  it('that are loaded again are the newest', () => {
    const names = new Names(2);
    for (const name of ['a', 'b', 'a', 'c']) names.add(version(name));
    expect(named(names.of('policy'))).toEqual(['a', 'c']);
  });
});
