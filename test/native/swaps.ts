/** Revisions that come and go while requests run: what each answers must be, bit for bit, what it answers alone. */
import assert from 'node:assert/strict';
import type { LoraModule } from '../../native/types.ts';
import { type Adapter, randomAdapter, randomNumbers, type TestEngine } from './support.ts';

export const REVISIONS = 7;
const PROMPT = [11, 22, 33, 44];

/** Random factors of its own rank and seed, every other one without k_proj: each revision answers differently. */
export function revision(served: TestEngine, index: number): Adapter {
  const adapter = randomAdapter(served.model, { rank: 4 + 9 * index, seed: index + 1 });
  const keeps = (module: LoraModule) => index % 2 === 0 || module.module !== 'k_proj';
  return { body: adapter.body, modules: adapter.modules.filter(keeps) };
}

/**
 * Stages, activates and releases while four requests a round are asked for; throws at the first answer that is another
 * revision's, and where something is left behind. Returns how many answers there were.
 */
export async function swapUnderLoad(
  served: TestEngine,
  { rounds, seed }: { rounds: number; seed: number },
): Promise<number> {
  const adapters = Array.from({ length: REVISIONS }, (_, i) => revision(served, i));
  const answers = await fingerprints(served, adapters, PROMPT);
  const random = randomNumbers(seed);
  const asked: Promise<unknown>[] = [];
  let answered = 0;

  for (let round = 0; round < rounds; round++) {
    const index = round % REVISIONS;
    const { body, modules } = adapters[index] as Adapter;
    if ((await served.engine.stage(`r${index}`, body, modules)).slot === null) {
      await Promise.race(asked);
      continue;
    }
    await served.engine.activate('style', `r${index}`, false);
    for (let i = 0; i < 4; i++) {
      const request = served.start({
        prompt: PROMPT,
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
        assert.deepEqual(answer.logprobs, expected, `of ${answer.revision ?? 'the base'}`);
      });
      asked.push(checked);
      if (random() < 0.1) served.engine.cancel(request.id);
    }
    if (random() < 0.3) await served.engine.release(`r${index}`);
    if (random() < 0.3) await served.engine.deactivate('style');
  }

  await Promise.all(asked);
  for (const slot of served.engine.snapshot().slots) await served.engine.release(slot.revision);
  const { slots, pagesUsed, kvBlocksUsed, running } = served.engine.snapshot();
  assert.deepEqual(
    { slots, pagesUsed, kvBlocksUsed, running },
    { slots: [], pagesUsed: 0, kvBlocksUsed: 0, running: 0 },
  );
  return answered;
}

/** The log-probabilities that each revision answers with, and last those of the base; all differ. */
export async function fingerprints(
  served: TestEngine,
  adapters: Adapter[],
  prompt: number[],
): Promise<unknown[]> {
  const prints: unknown[] = [];
  const request = { prompt, maxTokens: 4, stopTokens: [], logprobs: 3 };
  for (const [index, { body, modules }] of adapters.entries()) {
    await served.engine.stage(`r${index}`, body, modules);
    const target = { kind: 'revision', digest: `r${index}` } as const;
    prints.push((await served.generate({ ...request, target })).logprobs);
    await served.engine.release(`r${index}`);
  }
  prints.push((await served.generate(request)).logprobs);
  assert.equal(new Set(prints.map((print) => JSON.stringify(print))).size, adapters.length + 1);
  return prints;
}
