import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { PARROT } from './world.ts';

const Golden = z.object({
  cases: z.array(
    z.object({
      adapter: z.string(),
      ids: z.array(z.number()),
      greedy: z.array(z.number()),
      margins: z.array(z.number()),
    }),
  ),
  bf16_distance: z.record(z.string(), z.object({ max: z.number() })),
});

/** What transformers and PEFT answer, greedily, for one prompt under one adapter. */
export interface GoldenCase {
  prompt: number[];
  /** Cut before the first step whose margin is too small to be sure of. */
  sure: number[];
  /** True where `sure` is the whole answer. */
  whole: boolean;
}

/** The float32 bound of test/fixtures/README.md: a smaller margin may fall either way. */
const MARGIN_MIN = 2e-3;

export async function goldenCases(adapter: string): Promise<GoldenCase[]> {
  const golden = Golden.parse(JSON.parse(await readFile(join(PARROT, 'golden/golden.json'), 'utf8')));
  return golden.cases
    .filter((one) => one.adapter === adapter)
    .map(({ ids, greedy, margins }) => {
      const unsure = margins.findIndex((margin) => margin < MARGIN_MIN);
      return { prompt: ids, sure: unsure < 0 ? greedy : greedy.slice(0, unsure), whole: unsure < 0 };
    });
}

const Answers = z.record(z.string(), z.record(z.string(), z.string()));

/** The exact answer that a trained adapter (or `base`) was found to give to an unseen request. */
export async function goldenAnswer(style: string, request: string): Promise<string> {
  const answers = Answers.parse(JSON.parse(await readFile(join(PARROT, 'golden/answers.json'), 'utf8')));
  const answer = answers[style]?.[request];
  if (answer === undefined) throw new Error(`no golden answer of ${style} to ${request}`);
  return answer;
}
