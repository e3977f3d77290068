/**
 * The engine on a GPU, through the addon: `node test/native/cuda/device.ts [--backend NAME]`. The fixtures' goldens,
 * each request alone and in company, and swaps under load whose freed pages are poisoned. Prints one JSON object; exits
 * 77 where no GPU answers, 1 where an answer is wrong.
 */
import assert from 'node:assert/strict';
import { parseArgs } from 'node:util';
import { backends } from '../../../native/index.ts';
import type { EngineOptions } from '../../../native/types.ts';
import { agree, ask, MODELS, serveAll, withoutStep } from '../golden.ts';
import { type GoldenCase, goldenCases, TestEngine } from '../support.ts';
import { swapUnderLoad } from '../swaps.ts';

const NO_GPU = 77;
const SWAPS = { rounds: 500, seed: 4 };

const { backend } = parseArgs({ options: { backend: { type: 'string', default: 'cuda' } } }).values;
const wanted = backends().find(({ name }) => name === backend);
if (wanted?.available) {
  const report = { device: '', goldens: {} as Record<string, unknown>, swaps: {} };
  const options = { backend, dtype: 'bfloat16', slots: 16 } as const;
  for (const model of MODELS) report.goldens[model] = await timed(() => checkGoldens(model, options));
  report.swaps = await timed(async () => {
    await using served = await TestEngine.open('parrot', {
      ...options,
      slots: 4,
      maxBatch: 16,
      prefixCache: true,
    });
    report.device = served.engine.info.backend;
    return await swapUnderLoad(served, SWAPS);
  });
  process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
} else {
  process.stderr.write(`no GPU answers here: ${wanted?.reason ?? `there is no backend ${backend}`}\n`);
  process.exitCode = NO_GPU;
}

async function checkGoldens(model: string, options: Partial<EngineOptions>): Promise<number> {
  const cases = goldenCases(model);
  await using served = await serveAll(model, cases, options);
  const mixed = await Promise.all(cases.map((golden) => ask(served, golden)));
  for (const [i, answer] of mixed.entries()) {
    const golden = cases[i] as GoldenCase;
    agree(model, golden, answer, 'bfloat16');
    const alone = await ask(served, golden);
    assert.deepEqual(withoutStep(alone), withoutStep(answer), `${golden.key} alone and in company`);
  }
  return cases.length;
}

async function timed(check: () => Promise<number>): Promise<{ answers: number; seconds: number }> {
  const began = performance.now();
  const answers = await check();
  return { answers, seconds: Math.round(performance.now() - began) / 1000 };
}
