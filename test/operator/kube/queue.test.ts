import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Handler, type Outcome, WorkQueue } from '../../../operator/kube/queue.ts';
import { ApiError } from '../../../operator/kube/rest.ts';
import { FakeClock } from './fake-clock.ts';

const DONE: Outcome = { kind: 'done' };

describe('WorkQueue', () => {
  let clock: FakeClock;
  let stop: AbortController;
  let ran: string[];

  beforeEach(() => {
    clock = new FakeClock();
    stop = new AbortController();
    ran = [];
  });

  afterEach(() => stop.abort());

  function queueOf(concurrency = 1): WorkQueue {
    return new WorkQueue({ concurrency, clock, random: () => 1 });
  }

  function start(queue: WorkQueue, handler: Handler = async () => DONE): Promise<void> {
    return queue.run((key, signal) => {
      ran.push(`${key} at ${clock.monotonicMs() - 1_000}`);
      return handler(key, signal);
    }, stop.signal);
  }

  it('runs keys first come first served, each once however often it was added', async () => {
    const queue = queueOf();
    for (const key of ['a', 'b', 'a', 'c', 'b']) queue.add(key);
    expect(queue.depth).toBe(3);
    void start(queue);
    await clock.advance(0);
    expect(ran).toEqual(['a at 0', 'b at 0', 'c at 0']);
  });

  it('runs a key once more when it was added while it ran', async () => {
    const queue = queueOf(2);
    const first = Promise.withResolvers<Outcome>();
    void start(queue, () => (ran.length === 1 ? first.promise : Promise.resolve(DONE)));
    queue.add('a');
    await clock.advance(0);
    queue.add('a');
    queue.add('a');
    await clock.advance(0);
    expect(ran).toHaveLength(1);
    first.resolve(DONE);
    await clock.advance(0);
    expect(ran).toHaveLength(2);
  });

  it('runs a key again after the time that its handler says', async () => {
    const queue = queueOf();
    void start(queue, async () => (ran.length < 3 ? { kind: 'again', afterMs: 500 } : DONE));
    queue.add('a');
    await clock.advance(10_000);
    expect(ran).toEqual(['a at 0', 'a at 500', 'a at 1000']);
  });

  it('keeps the earlier of two delays, and none once the key has run', async () => {
    const queue = queueOf();
    void start(queue);
    queue.addAfter('a', 900);
    queue.addAfter('a', 300);
    queue.addAfter('b', 300);
    queue.addAfter('b', 900);
    await clock.advance(10_000);
    expect(ran).toEqual(['a at 300', 'b at 300']);
  });

  it('drops the delay of a key that runs before it is over', async () => {
    const queue = queueOf();
    void start(queue);
    queue.addAfter('a', 500);
    queue.add('a');
    await clock.advance(10_000);
    expect(ran).toEqual(['a at 0']);
  });

  it('doubles the delay with each throw in a row up to the cap, and forgets them after a success', async () => {
    const queue = new WorkQueue({ concurrency: 1, clock, random: () => 1, maxDelayMs: 1_000 });
    void start(queue, async () => {
      if (ran.length !== 6) throw new Error('poison');
      return { kind: 'again', afterMs: 50 };
    });
    queue.add('a');
    await clock.advance(3_000);
    expect(ran).toEqual([0, 100, 300, 700, 1_500, 2_500, 2_550, 2_650, 2_850].map((atMs) => `a at ${atMs}`));
  });

  it('waits as long as the API server asked for', async () => {
    const queue = queueOf();
    const busy = new ApiError({ status: 429, reason: 'TooManyRequests', retryAfterMs: 7_000 }, 'busy');
    void start(queue, async () => (ran.length === 1 ? Promise.reject(busy) : DONE));
    queue.add('a');
    await clock.advance(10_000);
    expect(ran).toEqual(['a at 0', 'a at 7000']);
  });

  it('says what failed, how often, and when it tries again', async () => {
    const failures: object[] = [];
    const queue = new WorkQueue({
      concurrency: 1,
      clock,
      random: () => 0,
      onFailure: (failure) => failures.push(failure),
    });
    const error = new Error('poison');
    void start(queue, () => Promise.reject(error));
    queue.add('a');
    await clock.advance(60);
    expect(failures).toEqual([
      { key: 'a', error, failures: 1, retryMs: 50 },
      { key: 'a', error, failures: 2, retryMs: 100 },
    ]);
  });

  it('lets the others run while one key fails for ever and another hangs', async () => {
    const queue = queueOf(2);
    void start(queue, (key) => {
      if (key === 'hangs') return new Promise<Outcome>(() => {});
      return key === 'fails' ? Promise.reject(new Error('poison')) : Promise.resolve(DONE);
    });
    for (const key of ['hangs', 'fails', 'a', 'b']) queue.add(key);
    await clock.advance(0);
    expect(ran).toEqual(['hangs at 0', 'fails at 0', 'a at 0', 'b at 0']);
  });

  it('ends when the signal aborts and what ran has returned, and runs nothing after', async () => {
    const queue = queueOf();
    const last = Promise.withResolvers<Outcome>();
    let ended = false;
    const running = start(queue, () => last.promise).then(() => {
      ended = true;
    });
    queue.add('a');
    queue.add('b');
    await clock.advance(0);
    stop.abort();
    await clock.advance(0);
    expect(ended).toBe(false);
    last.resolve({ kind: 'again', afterMs: 5 });
    await running;
    queue.addAfter('c', 5);
    expect(clock.timers).toBe(0);
    expect(ran).toEqual(['a at 0']);
  });

  it('never runs a key twice at once, never runs more than it may, and runs each key after its last add', async () => {
    const step = fc.oneof(
      fc.record({ act: fc.constant('add' as const), key: fc.constantFrom('a', 'b', 'c', 'd') }),
      fc.record({ act: fc.constant('after' as const), key: fc.constantFrom('a', 'b'), ms: fc.nat(500) }),
      fc.record({ act: fc.constant('pass' as const), ms: fc.nat(400) }),
    );
    const behaviour = fc.record({ ms: fc.nat(200), ends: fc.constantFrom('done', 'again', 'throws') });
    const scenario = fc.tuple(
      fc.integer({ min: 1, max: 3 }),
      fc.array(step, { maxLength: 40 }),
      fc.array(behaviour),
    );
    await fc.assert(
      fc.asyncProperty(scenario, async ([concurrency, steps, behaviours]) => {
        const time = new FakeClock();
        const ending = new AbortController();
        const queue = new WorkQueue({ concurrency, clock: time, random: () => 0.5 });
        const running = new Set<string>();
        const addedAtMs = new Map<string, number>();
        const ranAtMs = new Map<string, number>();
        const script = [...behaviours];
        const ended = queue.run(async (key) => {
          expect(running.has(key)).toBe(false);
          running.add(key);
          expect(running.size).toBeLessThanOrEqual(concurrency);
          ranAtMs.set(key, time.monotonicMs());
          const { ms, ends } = script.shift() ?? { ms: 0, ends: 'done' };
          await new Promise<void>((resolve) => time.after(ms, resolve));
          running.delete(key);
          if (ends === 'throws') throw new Error('poison');
          return ends === 'again' ? { kind: 'again', afterMs: ms } : DONE;
        }, ending.signal);
        for (const one of steps) {
          if (one.act === 'pass') await time.advance(one.ms);
          else if (one.act === 'after') queue.addAfter(one.key, one.ms);
          else queue.add(one.key);
          if (one.act !== 'pass') addedAtMs.set(one.key, time.monotonicMs());
        }
        await time.advance(400_000);
        for (const [key, atMs] of addedAtMs) expect(ranAtMs.get(key)).toBeGreaterThanOrEqual(atMs);
        expect(queue.depth).toBe(0);
        ending.abort();
        await ended;
      }),
      { numRuns: 200 },
    );
  });
});
