import { describe, expect, it } from 'vitest';
import { SlotTurns } from '../../../server/adapters/slot-turns.ts';

const NEVER = new AbortController().signal;

/** Slots with leases, and what happened in the order in which it did. */
class World {
  readonly log: string[] = [];
  readonly turns: SlotTurns;
  readonly #leases = new Map<string, number>();

  constructor({ slots = 1, waitingMax = 100, turnMax = 100 } = {}) {
    this.turns = new SlotTurns({
      slots,
      waitingMax,
      turnMax,
      slotsInUse: () =>
        [...this.#leases].map(([revision, leases]) => ({ revision, state: 'ready' as const, leases })),
      bringIn: async (digest) => {
        if (digest === 'broken') throw new Error('it does not load');
        if (!this.#leases.has(digest)) {
          if (this.#leases.size === slots) this.#evictIdle();
          this.#leases.set(digest, 0);
          this.log.push(`${digest} in`);
        }
        return true;
      },
    });
  }

  /** A request as the serving API makes it; it runs until `end`. */
  ask(digest: string, signal = NEVER): Promise<void> {
    const submit = () => {
      const leases = this.#leases.get(digest);
      if (leases === undefined) return false;
      this.#leases.set(digest, leases + 1);
      this.log.push(digest);
      return true;
    };
    const run = async () => {
      await this.turns.enter(digest, signal);
      if (submit()) return;
      await this.turns.wait(digest, signal);
      if (!submit()) throw new Error(`${digest} is in no slot`);
    };
    return run();
  }

  end(digest: string): void {
    this.#leases.set(digest, (this.#leases.get(digest) ?? 0) - 1);
    this.turns.wake();
  }

  #evictIdle(): void {
    const idle = [...this.#leases].find(([, leases]) => leases === 0)?.[0];
    if (idle === undefined) throw new Error('no slot is free');
    this.#leases.delete(idle);
  }
}

/** All that can happen without the world has happened. */
async function settle(): Promise<void> {
  for (let i = 0; i < 10; i++) await new Promise(setImmediate);
}

describe('turns of slots', () => {
  it('bring a revision in once for all who wait for it', async () => {
    const world = new World();
    await Promise.all([world.ask('a'), world.ask('a'), world.ask('a')]);
    expect(world.log).toEqual(['a in', 'a', 'a', 'a']);
  });

  it('let a revision in when the last lease of another one ends', async () => {
    const world = new World();
    await world.ask('a');
    await world.ask('a');
    const waiting = world.ask('b');
    await settle();
    world.end('a');
    await settle();
    expect(world.log).toEqual(['a in', 'a', 'a']);
    world.end('a');
    await waiting;
    expect(world.log.slice(3)).toEqual(['b in', 'b']);
  });

  it('let nobody into the revision that has to go, who then waits for its next turn', async () => {
    const world = new World();
    await world.ask('a');
    const b = world.ask('b');
    await settle();
    const a = world.ask('a');
    await settle();
    world.end('a');
    await b;
    world.end('b');
    await a;
    expect(world.log).toEqual(['a in', 'a', 'b in', 'b', 'a in', 'a']);
  });

  it('close only the one that has been there for the longest', async () => {
    const world = new World({ slots: 2 });
    await world.ask('a');
    await world.ask('b');
    const c = world.ask('c');
    await settle();
    await world.ask('b');
    const a = world.ask('a');
    await settle();
    expect(world.log).toEqual(['a in', 'a', 'b in', 'b', 'b']);
    world.end('a');
    await c;
    world.end('c');
    world.end('b');
    world.end('b');
    await a;
    expect(world.log.slice(5)).toEqual(['c in', 'c', 'a in', 'a']);
  });

  it('come in the order in which requests began to wait', async () => {
    const world = new World();
    await world.ask('a');
    const others = ['b', 'c', 'd', 'b', 'c'].map((digest) => world.ask(digest));
    await settle();
    for (const digest of ['a', 'b', 'b', 'c', 'c', 'd']) {
      world.end(digest);
      await settle();
    }
    await Promise.all(others);
    expect(world.log).toEqual(['a in', 'a', 'b in', 'b', 'b', 'c in', 'c', 'c', 'd in', 'd']);
  });

  it('let a bounded number in while others wait', async () => {
    const world = new World({ turnMax: 2 });
    await world.ask('a');
    const all = ['b', 'b', 'b', 'c'].map((digest) => world.ask(digest));
    await settle();
    for (const digest of ['a', 'b', 'b', 'c', 'b']) {
      world.end(digest);
      await settle();
    }
    await Promise.all(all);
    expect(world.log.slice(2)).toEqual(['b in', 'b', 'b', 'c in', 'c', 'b in', 'b']);
  });

  it('refuse one more than may wait', async () => {
    const world = new World({ waitingMax: 1 });
    await world.ask('a');
    const b = world.ask('b');
    await settle();
    await expect(world.ask('c')).rejects.toMatchObject({ code: 'no_capacity', actual: 1 });
    world.end('a');
    await b;
  });

  it('forget those who have gone', async () => {
    const world = new World();
    await world.ask('a');
    const gone = new AbortController();
    const b = world.ask('b', gone.signal);
    await settle();
    gone.abort(new Error('gone'));
    await expect(b).rejects.toThrow('gone');
    expect(world.turns.waiters).toBe(0);
    await world.ask('a');
    expect(world.log).toEqual(['a in', 'a', 'a']);
  });

  it('fail for those who wait for a revision that does not load, and go on', async () => {
    const world = new World();
    await expect(world.ask('broken')).rejects.toThrow('it does not load');
    await world.ask('a');
    expect(world.log).toEqual(['a in', 'a']);
  });
});
