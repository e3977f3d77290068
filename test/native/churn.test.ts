import { describe, expect, it } from 'vitest';
import type { LoraModule } from '../../native/types.ts';
import { type Adapter, RequestFailed, randomAdapter, randomNumbers, TestEngine } from './support.ts';

const SLOTS = 4;
const REVISIONS = 7;
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

/** Random factors of its own rank and seed, every other one without k_proj: each revision answers differently. */
function revision(served: TestEngine, index: number): Adapter {
  const adapter = randomAdapter(served.model, { rank: 4 + 9 * index, seed: index + 1 });
  const keeps = (module: LoraModule) => index % 2 === 0 || module.module !== 'k_proj';
  return { body: adapter.body, modules: adapter.modules.filter(keeps) };
}

describe('random stage, activate, deactivate, release, submit and cancel', () => {
  it.each([1, 2, 3])('agree with a model of the slot pool, seed %i', { timeout: 20_000 }, async (seed) => {
    await using served = await TestEngine.open('parrot', { slots: SLOTS, kvBytes: 4 << 20, maxBatch: 4 });
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
        const activated = served.engine.activate(name, target);
        if (!model.resident.includes(target)) {
          await expect(activated).rejects.toMatchObject({ code: 'revision_not_found' });
          return;
        }
        await activated;
        model.touch(target);
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
    await using served = await TestEngine.open('parrot', { slots: SLOTS, kvBytes: 4 << 20, maxBatch: 16 });
    const adapters = Array.from({ length: REVISIONS }, (_, i) => revision(served, i));
    const prompt = [11, 22, 33, 44];
    const answers = await fingerprints(served, adapters, prompt);
    const random = randomNumbers(4);
    const asked: Promise<unknown>[] = [];
    let answered = 0;

    for (let round = 0; round < 60; round++) {
      const index = round % REVISIONS;
      const { body, modules } = adapters[index] as Adapter;
      const staged = await served.engine
        .stage(`r${index}`, body, modules)
        .catch((error: { code: string }) => error);
      if ('code' in staged) {
        expect(staged.code).toBe('no_capacity');
        await Promise.race(asked);
        continue;
      }
      await served.engine.activate('style', `r${index}`);
      for (let i = 0; i < 4; i++) {
        const request = served.start({
          prompt,
          target: i === 0 ? { kind: 'base' } : { kind: 'adapter', name: 'style' },
          maxTokens: 4,
          stopTokens: [],
          logprobs: 3,
        });
        const checked = request.result.then((answer) => {
          if (answer.reason === 'cancelled') return;
          answered += 1;
          const expected =
            answer.revision === null ? answers[REVISIONS] : answers[Number(answer.revision.slice(1))];
          expect(answer.logprobs).toEqual(expected);
        });
        asked.push(checked);
        if (random() < 0.1) served.engine.cancel(request.id);
      }
      if (random() < 0.3) await served.engine.release(`r${index}`);
      if (random() < 0.3) await served.engine.deactivate('style');
    }

    await Promise.all(asked);
    expect(answered).toBeGreaterThan(100);
    for (const slot of served.engine.snapshot().slots) await served.engine.release(slot.revision);
    expect(served.engine.snapshot()).toMatchObject({ slots: [], pagesUsed: 0, kvBlocksUsed: 0, running: 0 });
  });
});

/** The log-probabilities that each revision answers with, and last those of the base; all differ. */
async function fingerprints(served: TestEngine, adapters: Adapter[], prompt: number[]): Promise<unknown[]> {
  const prints: unknown[] = [];
  const request = { prompt, maxTokens: 4, stopTokens: [], logprobs: 3 };
  for (const [index, { body, modules }] of adapters.entries()) {
    await served.engine.stage(`r${index}`, body, modules);
    const target = { kind: 'revision', digest: `r${index}` } as const;
    prints.push((await served.generate({ ...request, target })).logprobs);
    await served.engine.release(`r${index}`);
  }
  prints.push((await served.generate(request)).logprobs);
  expect(new Set(prints.map((print) => JSON.stringify(print))).size).toBe(adapters.length + 1);
  return prints;
}
