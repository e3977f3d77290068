import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { readProcessor } from '../../bench/engine/processor.ts';
import { startServer } from '../../support/server-process.ts';
import { toolPath } from '../../support/tools.ts';
import { Narrator } from '../narrator.ts';
import { type Check, checkRatios, checkRevisions, checkReward, syncTimes } from './checks.ts';
import { askBase, loadAgain, rawLogprobs, unload } from './completions.ts';
import { importanceRatios, type ScoredSample, type Step, type Training, train } from './grpo.ts';
import { Recorder, type Recording } from './recorder.ts';
import { RecordingProxy } from './recording-proxy.ts';

const MODEL = resolve(import.meta.dirname, '../../fixtures/parrot');
const SETUP = resolve(import.meta.dirname, '../../support/setup.mjs');
const STEPS = 100;
/** The fewest that the trainer goes on with: its max_staleness + 2. */
const SLOTS = 4;
const KEPT_VERSIONS = 10;
const TELL_EVERY_STEPS = 10;

const USAGE = `npm run e2e:trainers -- [--steps N]

TRL's AsyncGRPOTrainer trains a LoRA adapter for N steps (${STEPS}) against one server with --vllm-api, on the processor;
what of it speaks to the server is unchanged. Between them stands a proxy that knows by the trainer's files which revision each answer must be of.
Ends with 1 where a check fails. Fewer than 40 steps: the reward is said and not judged.

The first run installs TRL and PyTorch into the cache of the tools (6 GB). Training through an operator into several
pods is not part of it yet.
`;

const tell = new Narrator();

async function main(steps: number): Promise<boolean> {
  if (spawnSync(process.execPath, [SETUP, 'trainers'], { stdio: 'inherit' }).status !== 0) return false;
  const python = toolPath('trainers');
  const outDir = await mkdtemp(join(tmpdir(), 'lorikeet-trainers-'));
  const { model, signature, processors } = readProcessor();
  tell.say(`${requirements()} on ${model} (${signature}), ${processors} processors`);
  tell.chapter('One server');
  const flags = ['--vllm-api', '--lora-root', outDir, '--logprobs-mode', 'processed'];
  flags.push('--dtype', 'float32', '--slots', String(SLOTS));
  const server = await startServer(['--model', MODEL, '--served-model-name', MODEL, ...flags]);
  try {
    tell.say(`npm start -- --model DIR --served-model-name DIR ${flags.join(' ').replace(outDir, 'FOLDER')}`);
    const keep = { dir: join(outDir, 'kept'), everyVersions: Math.ceil(steps / KEPT_VERSIONS) };
    const recorder = new Recorder(MODEL, keep);
    const done = await trainAt(server.serving, recorder, { python, steps, outDir });
    return await judge(python, server.serving, await recorder.recording(), done);
  } finally {
    await server.stop();
    await rm(outDir, { recursive: true, force: true });
  }
}

/** Trains against whatever speaks vLLM's dialect at `url`, with the recorder between. */
async function trainAt(
  url: string,
  recorder: Recorder,
  training: Pick<Training, 'python' | 'steps' | 'outDir'>,
): Promise<Step[]> {
  tell.chapter(`AsyncGRPOTrainer, ${training.steps} steps`);
  const proxy = await RecordingProxy.start(url, recorder);
  try {
    await askBase(proxy.url, MODEL);
    const done = await train({ ...training, url: proxy.url, model: MODEL, onStep });
    // What was loaded since has left the base's name alone.
    await askBase(proxy.url, MODEL);
    return done;
  } finally {
    await proxy.close();
  }
}

async function judge(python: string, url: string, recording: Recording, done: Step[]): Promise<boolean> {
  tell.chapter('What came of it');
  const samples: ScoredSample[] = [];
  for (const sample of recording.samples) {
    await loadAgain(url, sample);
    samples.push({ ...sample, raw: await rawLogprobs(url, sample) });
    await unload(url, sample);
  }
  const ratios = await tell.timed(
    `PyTorch scores ${samples.length} of the samples under the versions that made them`,
    () => importanceRatios(python, MODEL, samples),
  );
  const checks = [
    checkReward(done.map(({ reward }) => reward)),
    ...checkRevisions(recording, done.length),
    ...checkRatios(ratios),
    ...syncTimes(done, recording),
  ];
  for (const check of checks) say(check);
  const isGood = checks.every((check) => check.isGood !== false);
  tell.end(isGood ? 'Every check holds' : 'A check failed');
  return isGood;
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
const { values } = parseArgs({
  options: { steps: { type: 'string', default: String(STEPS) }, help: { type: 'boolean', default: false } },
});
const steps = Number(values.steps);
if (values.help) process.stdout.write(USAGE);
else if (!Number.isInteger(steps) || steps < 2) {
  process.stderr.write(
    `Expected an integer of 2 or more for --steps but received ${values.steps}\n\n${USAGE}`,
  );
  process.exitCode = 2;
} else process.exitCode = (await main(steps)) ? 0 : 1;
