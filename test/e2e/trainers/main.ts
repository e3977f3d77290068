import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { readProcessor } from '../../bench/engine/processor.ts';
import { readOptions } from '../../support/options.ts';
import { startServer } from '../../support/server-process.ts';
import { toolPath } from '../../support/tools.ts';
import { START_MS } from '../attached/real-engine.ts';
import { Narrator } from '../narrator.ts';
import { ARGS, ENVIRONMENT, entrypoint } from '../vllm/engine.ts';
import { POOL, ROOT } from '../world.ts';
import { type Check, checkRatios, checkRevisions, checkReward, syncTimes } from './checks.ts';
import { askBase, loadAgain, rawLogprobs, unload } from './completions.ts';
import { startFleet } from './fleet.ts';
import {
  type Distances,
  importanceRatios,
  type ScoredSample,
  type Step,
  type Training,
  train,
} from './grpo.ts';
import { Recorder, type Recording } from './recorder.ts';
import { RecordingProxy } from './recording-proxy.ts';

const MODELS = resolve(import.meta.dirname, '../../fixtures');
const MODEL = join(MODELS, 'parrot');
const SETUP = resolve(import.meta.dirname, '../../support/setup.mjs');
const STEPS = 100;
/** The fewest that the trainer goes on with: its max_staleness + 2. */
const SLOTS = 4;
const KEPT_VERSIONS = 10;
const TELL_EVERY_STEPS = 10;

const USAGE = `npm run e2e:trainers -- [--steps N] [--only server|fleet|vllm]

TRL's AsyncGRPOTrainer trains a LoRA adapter for N steps (${STEPS}) on the processor: against one server with --vllm-api, then through
the bridge and an operator into two pods, of which one is killed half-way. What of it speaks to the server is unchanged. Between them stands a proxy that knows by the trainer's files which revision each answer must be of.
Ends with 1 where a check fails. Fewer than 40 steps: the reward is said and not judged.

With --only vllm: through the bridge and an operator into a pod whose engine is a real vLLM on the processor.

The first run installs TRL and PyTorch into the cache of the tools (6 GB).
`;

const tell = new Narrator();

type Run = Pick<Training, 'python' | 'steps' | 'outDir'>;
const RUNS = { server: throughServer, fleet: throughFleet, vllm: throughVllm };
/** What runs where none is named. */
const USUAL: readonly string[] = ['server', 'fleet'];

async function main(steps: number, runs: (keyof typeof RUNS)[]): Promise<boolean> {
  if (spawnSync(process.execPath, [SETUP, 'trainers'], { stdio: 'inherit' }).status !== 0) return false;
  const python = toolPath('trainers');
  const { model, signature, processors } = readProcessor();
  tell.say(`${requirements()} on ${model} (${signature}), ${processors} processors`);
  const checks: Check[] = [];
  for (const run of runs) {
    const outDir = await mkdtemp(join(tmpdir(), 'lorikeet-trainers-'));
    try {
      const found = await RUNS[run]({ python, steps, outDir });
      for (const check of found) say(check);
      checks.push(...found);
    } finally {
      await rm(outDir, { recursive: true, force: true });
    }
  }
  const isGood = checks.every((check) => check.isGood !== false);
  tell.end(isGood ? 'Every check holds' : 'A check failed');
  return isGood;
}

async function throughServer(run: Run): Promise<Check[]> {
  const { python, outDir } = run;
  tell.chapter('One server');
  const flags = ['--vllm-api', '--lora-root', outDir, '--logprobs-mode', 'processed'];
  flags.push('--dtype', 'float32', '--slots', String(SLOTS));
  const server = await startServer(['--model', MODEL, '--served-model-name', MODEL, ...flags]);
  try {
    tell.say(`npm start -- --model DIR --served-model-name DIR ${flags.join(' ').replace(outDir, 'FOLDER')}`);
    const recorder = new Recorder(MODEL, keepOf(run));
    const done = await trainAt(server.serving, recorder, { ...run, model: MODEL, onStep });
    tell.chapter('What came of it');
    const recording = await recorder.recording();
    const ratios = await scored(python, server.serving, recording);
    return [...checksOf(done, recording), ...checkRatios(ratios), ...syncTimes(done, recording)];
  } finally {
    await server.stop();
  }
}

async function throughFleet(run: Run): Promise<Check[]> {
  tell.chapter('Two pods, an operator and the bridge');
  const fleet = await startFleet({ loraRoot: run.outDir });
  try {
    const recorder = new Recorder(POOL, keepOf(run), (version) => version.replace(/-v\d+$/, ''));
    const done = await trainAt(fleet.url, recorder, {
      ...run,
      model: POOL,
      cwd: MODELS,
      onStep: (step) => {
        onStep(step);
        if (step.step === run.steps >> 1) tell.say(`step ${step.step}: ${fleet.killOne()} is killed`);
      },
    });
    tell.chapter('What came of it');
    const recording = await recorder.recording();
    return [...checksOf(done, recording), ...syncTimes(done, recording)];
  } finally {
    await fleet.stop();
  }
}

async function throughVllm(run: Run): Promise<Check[]> {
  if (spawnSync(process.execPath, [SETUP, 'vllm'], { stdio: 'inherit' }).status !== 0)
    throw new Error('There is no vLLM');
  tell.chapter('A pod before a vLLM, an operator and the bridge');
  const image = { entrypoint: entrypoint(), cwd: ROOT, env: ENVIRONMENT };
  const args = [...ARGS, '--logprobs-mode=processed_logprobs'];
  const fleet = await startFleet({
    loraRoot: run.outDir,
    attached: { engine: { kind: 'vllm', image, args }, startMs: START_MS },
  });
  try {
    const recorder = new Recorder(POOL, keepOf(run), (version) => version.replace(/-v\d+$/, ''));
    const done = await trainAt(fleet.url, recorder, { ...run, model: POOL, cwd: MODELS, onStep });
    tell.chapter('What came of it');
    const recording = await recorder.recording();
    return [...checksOf(done, recording), ...syncTimes(done, recording)];
  } finally {
    await fleet.stop();
  }
}

function keepOf({ outDir, steps }: Run) {
  return { dir: join(outDir, 'kept'), everyVersions: Math.ceil(steps / KEPT_VERSIONS) };
}

/** Trains against whatever speaks vLLM's dialect at `url`, with the recorder between. */
async function trainAt(url: string, recorder: Recorder, training: Omit<Training, 'url'>): Promise<Step[]> {
  tell.chapter(`AsyncGRPOTrainer, ${training.steps} steps`);
  const proxy = await RecordingProxy.start(url, recorder);
  try {
    await askBase(proxy.url, training.model);
    const done = await train({ ...training, url: proxy.url });
    // What was loaded since has left the base's name alone.
    await askBase(proxy.url, training.model);
    return done;
  } finally {
    await proxy.close();
  }
}

function checksOf(done: Step[], recording: Recording): Check[] {
  return [checkReward(done.map(({ reward }) => reward)), ...checkRevisions(recording, done.length)];
}

/** The kept samples by PyTorch, beside what the server says of them with and without temperature. */
async function scored(python: string, url: string, recording: Recording): Promise<Distances> {
  const samples: ScoredSample[] = [];
  for (const sample of recording.samples) {
    await loadAgain(url, sample);
    samples.push({ ...sample, raw: await rawLogprobs(url, sample) });
    await unload(url, sample);
  }
  return await tell.timed(
    `PyTorch scores ${samples.length} of the samples under the versions that made them`,
    () => importanceRatios(python, MODEL, samples),
  );
}

function say({ what, found, isGood }: Check): void {
  const mark = isGood === null ? ' ' : isGood ? '✓' : '✗';
  tell.say(`${mark} ${what.padEnd(82)} ${found}`);
}

function onStep({ step, reward, 'perf/weight_sync_s': syncS }: Step): void {
  if (step % TELL_EVERY_STEPS !== 0 && step !== 1) return;
  tell.say(`step ${step}: reward ${reward.toFixed(4)}, weight_sync_s ${syncS.toFixed(3)}`);
}

/** The versions that were installed. */
function requirements(): string {
  const lines = readFileSync(join(import.meta.dirname, 'requirements.txt'), 'utf8')
    .trim()
    .split('\n');
  return lines
    .filter((line) => !line.startsWith('#'))
    .map((line) => line.replace('==', ' '))
    .join(', ');
}

// So that what runs on `exit` runs: the trainer has a process group of its own.
process.once('SIGINT', () => process.exit(130)).once('SIGTERM', () => process.exit(143));
const values = readOptions(USAGE, {
  options: {
    steps: { type: 'string', default: String(STEPS) },
    only: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});
const steps = Number(values.steps);
if (values.help) process.stdout.write(USAGE);
else if (!Number.isInteger(steps) || steps < 2) {
  process.stderr.write(
    `Expected an integer of 2 or more for --steps but received ${values.steps}\n\n${USAGE}`,
  );
  process.exitCode = 2;
} else if (values.only !== undefined && !(values.only in RUNS)) {
  process.stderr.write(
    `Expected ${Object.keys(RUNS).join(', ')} for --only but received ${values.only}\n\n${USAGE}`,
  );
  process.exitCode = 2;
} else {
  const all = Object.keys(RUNS) as (keyof typeof RUNS)[];
  const runs = all.filter((run) => (values.only === undefined ? USUAL.includes(run) : run === values.only));
  process.exitCode = (await main(steps, runs)) ? 0 : 1;
}
