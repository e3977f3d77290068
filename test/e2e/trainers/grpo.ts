import { join } from 'node:path';
import { z } from 'zod';
import { runPython } from './python.ts';
import type { Sample } from './recorder.ts';

const TRAINER = join(import.meta.dirname, 'train.py');
const RATIOS = join(import.meta.dirname, 'ratios.py');
const START_MS_MAX = 300_000;
const STEP_MS_MAX = 30_000;
const RATIOS_MS_MAX = 600_000;

const Step = z.object({
  step: z.number(),
  reward: z.number(),
  'perf/weight_sync_s': z.number(),
  'perf/weight_sync_pause_s': z.number(),
  'perf/weight_sync_transfer_s': z.number(),
});
export type Step = z.infer<typeof Step>;

const Distance = z.object({ tokens: z.number(), largest: z.number(), mean: z.number() });
const Distances = z.object({ processed: Distance, raw: Distance });
/** How far from 1 the importance ratios are, by which log-probabilities the server was asked for. */
export type Distances = z.infer<typeof Distances>;

export interface Training {
  python: string;
  /** Where the server, or what stands for one, is reached. It serves the base under the name `model`. */
  url: string;
  model: string;
  /** The folder that `model` is in, where it is no whole path. */
  cwd?: string;
  steps: number;
  /** The trainer writes its versions below it. */
  outDir: string;
  onStep: (step: Step) => void;
}

/** Trains with TRL against whatever speaks vLLM's dialect at `url`. */
export async function train({
  python,
  url,
  model,
  cwd = '.',
  steps,
  outDir,
  onStep,
}: Training): Promise<Step[]> {
  const done: Step[] = [];
  await runPython({
    python,
    cwd,
    args: [TRAINER, url, model, String(steps), outDir],
    timeoutMs: START_MS_MAX + steps * STEP_MS_MAX,
    onLine: (line) => {
      if (!line.startsWith('step ')) return;
      const step = Step.parse(JSON.parse(line.slice('step '.length)));
      done.push(step);
      onStep(step);
    },
  });
  if (done.length !== steps) throw new Error(`Expected ${steps} steps but received ${done.length}`);
  return done;
}

/** A sample with what the server says of its tokens without temperature. */
export interface ScoredSample extends Sample {
  raw: number[];
}

export async function importanceRatios(
  python: string,
  model: string,
  samples: ScoredSample[],
): Promise<Distances> {
  const lines: string[] = [];
  const stdin = JSON.stringify(
    samples.map(({ adapterDir, temperature, prompt, tokens, logprobs, raw }) => ({
      adapter: adapterDir,
      ...{ temperature, prompt, tokens },
      logprobs: { processed: logprobs, raw },
    })),
  );
  const onLine = (line: string) => void lines.push(line);
  await runPython({ python, args: [RATIOS, model], stdin, timeoutMs: RATIOS_MS_MAX, onLine });
  return Distances.parse(JSON.parse(lines.at(-1) ?? ''));
}
