import { describe, expect, it } from 'vitest';
import { type Adapter, RequestFailed, randomNumbers, TestEngine } from './support.ts';
import { fingerprints, REVISIONS, revision, swapUnderLoad } from './swaps.ts';

const SLOTS = 4;
const NAMES = ['red', 'green', 'blue'];

/** What the slot pool must look like, kept beside the engine. Between two operations nothing runs. */
class Model {
  /** Resident revisions, the least recently used first. */
  resident: string[] = [];
  current = new Map<string, string>();

  touch(revision: string): void {
    this.resident = [...this.resident.filter((other) => other !== revision), revision];
  }

  stage(revision: string): string[] {
    const evicted =
      this.resident.includes(revision) || this.resident.length < SLOTS ? [] : this.resident.slice(0, 1);
    this.resident = this.resident.filter((other) => !evicted.includes(other));
    this.touch(revision);
    return evicted;
  }
}

describe('random stage, activate, deactivate, release, submit and cancel', () => {
  it.each([1, 2, 3])('agree with a model of the slot pool, seed %i', { timeout: 20_000 }, async (seed) => {
    await using served = await TestEngine.open('parrot', {
      slots: SLOTS,
      kvBytes: 4 << 20,
      maxBatch: 4,
      prefixCache: true,
    });
    const random = randomNumbers(seed);
    const below = (n: number) => Math.floor(random() * n);
    const adapters = Array.from({ length: REVISIONS }, (_, i) => revision(served, i));
    const prompt = [11, 22, 33, 44];
    const answers = await fingerprints(served, adapters, prompt);
    const model = new Model();

    const operations: (() => Promise<void>)[] = [
      async () => {
        const index = below(REVISIONS);
        const { body, modules } = adapters[index] as Adapter;
        const expected = model.stage(`r${index}`);
        expect((await served.engine.stage(`r${index}`, body, modules)).evicted).toEqual(expected);
      },
      async () => {
        const name = NAMES[below(NAMES.length)] as string;
        const target = `r${below(REVISIONS)}`;
        await served.engine.activate(name, target, false);
        if (model.resident.includes(target)) model.touch(target);
        model.current.set(name, target);
      },
      async () => {
        const name = NAMES[below(NAMES.length)] as string;
        await served.engine.deactivate(name);
        model.current.delete(name);
      },
      async () => {
        const target = `r${below(REVISIONS)}`;
        expect(await served.engine.release(target)).toEqual({ leases: 0 });
        model.resident = model.resident.filter((other) => other !== target);
      },
      async () => {
        const name = NAMES[below(NAMES.length)] as string;
        const current = model.current.get(name);
        const answer = await served
          .generate({ prompt, target: { kind: 'adapter', name }, maxTokens: 4, stopTokens: [], logprobs: 3 })
          .catch((error: RequestFailed) => error);
        if (answer instanceof RequestFailed) {
          expect(answer.code).toBe(current === undefined ? 'adapter_not_found' : 'not_resident');
          expect(model.resident).not.toContain(current);
          return;
        }
        expect(answer.revision).toBe(current);
        expect(answer.logprobs).toEqual(answers[Number(current?.slice(1))]);
        model.touch(current as string);
      },
      async () => {
        const running = served.start({ prompt, maxTokens: 200, stopTokens: [] });
        served.engine.cancel(running.id);
        expect((await running.result).reason).toBe('cancelled');
      },
    ];

    for (let i = 0; i < 200; i++) {
      await operations[below(operations.length)]?.();
      const { slots, running, waiting, kvBlocksUsed } = served.engine.snapshot();
      expect({ running, waiting, kvBlocksUsed }).toEqual({ running: 0, waiting: 0, kvBlocksUsed: 0 });
      expect(slots.map((slot) => slot.revision).sort()).toEqual([...model.resident].sort());
      for (const slot of slots) expect(slot).toMatchObject({ state: 'ready', leases: 0 });
    }

    for (const target of model.resident) await served.engine.release(target);
    expect(served.engine.snapshot()).toMatchObject({ slots: [], pagesUsed: 0, kvBlocksUsed: 0 });
  });
});

describe('swaps under load', () => {
  it('never serve a token of another revision, and leave nothing behind', { timeout: 20_000 }, async () => {
    await using served = await TestEngine.open('parrot', {
      slots: SLOTS,
      kvBytes: 4 << 20,
      maxBatch: 16,
      prefixCache: true,
    });
    expect(await swapUnderLoad(served, { rounds: 60, seed: 4 })).toBeGreaterThan(100);
  });
});
