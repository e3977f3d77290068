import { beforeEach, describe, expect, it } from 'vitest';
import { Errands } from '../../../operator/source/errands.ts';
import { FakeClock } from '../kube/fake-clock.ts';

const LIMITS = { total: 4, perTenant: 2, perHost: 2 };
const signal = new AbortController().signal;

let errands: Errands;
let clock: FakeClock;
let started: string[];
let answered: string[];
/** By key: ends the errand. */
let end: Map<string, { with(value: string): void; fail(error: Error): void }>;

beforeEach(() => {
  clock = new FakeClock();
  started = [];
  answered = [];
  end = new Map();
  errands = new Errands({ limits: LIMITS, clock, onAnswer: (key) => void answered.push(key) });
});

function ask(key: string, { tenant = key, host = key, question = 'what' } = {}) {
  return errands.ask<string>({
    key,
    kind: 'content',
    question,
    lane: { tenant, host },
    signal,
    run: async (life) => {
      started.push(key);
      const { promise, resolve, reject } = Promise.withResolvers<string>();
      life.addEventListener('abort', () => reject(new Error('aborted')));
      end.set(key, { with: resolve, fail: reject });
      return await promise;
    },
  });
}

const finish = async (key: string) => {
  end.get(key)?.with(`${key} is done`);
  await clock.advance(0);
};

describe('what is asked of a source', () => {
  it('is answered when it is asked for again, once', async () => {
    expect(ask('a')).toEqual({ ageMs: 0, begun: true, result: null });
    await clock.advance(50);
    expect(ask('a')).toEqual({ ageMs: 50, begun: true, result: null });
    await finish('a');
    expect(answered).toEqual(['a']);
    expect(await ask('a').result).toBe('a is done');
    expect(started).toEqual(['a']);
    ask('a');
    expect(started).toEqual(['a', 'a']);
  });

  it('may fail, which is an answer', async () => {
    ask('a');
    end.get('a')?.fail(new Error('no such bucket'));
    await clock.advance(0);
    expect(answered).toEqual(['a']);
    await expect(ask('a').result).rejects.toThrow('no such bucket');
  });

  it('gives way to another question', async () => {
    ask('a');
    expect(ask('a', { question: 'another' })).toEqual({ ageMs: 0, begun: true, result: null });
    await clock.advance(0);
    expect(answered).toEqual([]);
    await finish('a');
    expect(await ask('a', { question: 'another' }).result).toBe('a is done');
  });

  it('is forgotten with its adapter', async () => {
    ask('a');
    errands.drop('a');
    await clock.advance(0);
    expect(answered).toEqual([]);
    expect(ask('a')).toEqual({ ageMs: 0, begun: true, result: null });
  });
});

describe('slow stores', () => {
  it('of one tenant leave places to the others', async () => {
    for (const key of ['a1', 'a2', 'a3', 'a4', 'a5']) ask(key, { tenant: 'a' });
    ask('b');
    expect(started).toEqual(['a1', 'a2', 'b']);
    await finish('a1');
    expect(started).toEqual(['a1', 'a2', 'b', 'a3']);
  });

  it('of one host leave places to the others', () => {
    for (const key of ['a', 'b', 'c']) ask(key, { host: 'slow' });
    ask('d');
    expect(started).toEqual(['a', 'b', 'd']);
  });

  it('let the tenant with the fewest go first when a place frees', async () => {
    for (const key of ['a1', 'a2']) ask(key, { tenant: 'a' });
    for (const key of ['b1', 'b2']) ask(key, { tenant: 'b' });
    ask('a3', { tenant: 'a' });
    ask('c1', { tenant: 'c' });
    expect(started).toEqual(['a1', 'a2', 'b1', 'b2']);
    await finish('a1');
    expect(started.at(-1)).toBe('c1');
  });

  it('go in order of arrival where tenants have as many under way, whatever hosts they ask', async () => {
    for (const key of ['a1', 'b1', 'c1', 'd1']) ask(key, { tenant: key.slice(0, 1) });
    const later = ['d2', 'a2', 'c2', 'b2'];
    for (const key of later) ask(key, { tenant: `e${key}`, host: key });
    for (const key of ['d1', 'c1', 'b1', 'a1']) await finish(key);
    expect(started.slice(4)).toEqual(later);
  });

  it('do not go on with what nobody asks for any more, nor begin it', async () => {
    for (const key of ['a1', 'a2', 'a3', 'a4']) ask(key, { tenant: 'a' });
    ask('a3', { tenant: 'a', question: 'another' });
    errands.drop('a4');
    await finish('a1');
    await finish('a2');
    await finish('a3');
    expect(started).toEqual(['a1', 'a2', 'a3']);
  });
});
