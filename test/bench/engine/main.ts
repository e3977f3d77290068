import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { loadModel } from '../../../server/model/load.ts';
import { say } from './cache.ts';
import { CASES, type Case, FULL, QUICK } from './cases.ts';
import { chartSvg } from './chart.ts';
import { measureFloors } from './floors.ts';
import { llamaCpp } from './llama-cpp.ts';
import { ensureModel } from './model.ts';
import { ours } from './ours.ts';
import type { Peer } from './peer.ts';
import { processorSlug, readProcessor } from './processor.ts';
import { describeFloors, type Measured, printReport, type Round, summarize } from './report.ts';
import { SHAPE_1B, SHAPE_8B } from './shape.ts';
import { vllm } from './vllm.ts';

const BIOME = resolve(import.meta.dirname, '../../../node_modules/.bin/biome');
const RESULTS = resolve(import.meta.dirname, '../results');
const USAGE = `usage: npm run bench -- engine [--8b] [--rounds N] [--cases A,B] [--quick] [--save]
  --8b       the shape of Llama 3.1 8B instead of one with 1.1 billion weights
  --rounds   how often each engine has its turn, 3 by default
  --cases    some of ${CASES.map(({ name }) => name).join(', ')}
  --quick    a quarter of the tokens
  --save     write test/bench/results/`;

interface Options {
  is8B: boolean;
  rounds: number;
  cases: Case[];
  quick: boolean;
  save: boolean;
}

async function main({ is8B, rounds, cases, quick, save }: Options): Promise<void> {
  const processor = readProcessor();
  console.log(`${processor.model} (${processor.signature}), ${processor.processors} processors`);
  console.log(`instruction sets: ${processor.flags.join(' ')}`);
  const floors = [await measureFloors()];
  console.log(describeFloors('limits before', floors[0] as (typeof floors)[0]));
  const shape = is8B ? SHAPE_8B : SHAPE_1B;
  const effort = quick ? QUICK : FULL;
  const dir = await ensureModel(shape);
  const { descriptor } = await loadModel(dir);
  const peers = [ours(shape, descriptor, cases, effort), await llamaCpp(shape, descriptor, cases, effort)];
  if (process.env.VLLM) peers.push(await vllm(process.env.VLLM, { shape, dir }, cases, effort));
  const measured: Measured = {
    date: new Date().toISOString().slice(0, 10),
    processor,
    shape,
    cases,
    engines: [],
    floors,
    rounds: [],
  };
  try {
    for (let round = 0; round < rounds; round++) {
      say(`round ${round + 1} of ${rounds}`);
      // Who goes first gets the cooler machine, so it is not always the same one.
      measured.rounds.push(await takeTurns(round % 2 === 0 ? peers : peers.toReversed()));
    }
  } finally {
    for (const peer of peers) await peer.close();
  }
  floors.push(await measureFloors());
  console.log(describeFloors('limits after', floors[1] as (typeof floors)[0]));
  measured.engines = peers.map(({ name, unavailable }) => ({ name, unavailable }));
  printReport(measured, peers);
  if (save) await saveResults(measured);
}

/** A peer that fails is left out from then on; ours must not fail. */
async function takeTurns(peers: Peer[]): Promise<Round> {
  const round: Round = {};
  for (const peer of peers) {
    if (peer.unavailable !== null) continue;
    try {
      say(`the turn of ${peer.name}`);
      round[peer.name] = await peer.turn();
    } catch (error) {
      if (peer.name === 'ours') throw error;
      peer.unavailable = (error as Error).message;
    }
  }
  return round;
}

async function saveResults(measured: Measured): Promise<void> {
  const name = `engine-${measured.date}-${processorSlug(measured.processor)}.json`;
  await mkdir(RESULTS, { recursive: true });
  const report = { ...measured, summary: summarize(measured) };
  await writeFile(join(RESULTS, name), `${JSON.stringify(report, null, 2)}\n`);
  await writeFile(join(RESULTS, 'engine.svg'), chartSvg(measured));
  // The checks of the sources include the results.
  await promisify(execFile)(BIOME, ['format', '--write', join(RESULTS, name)]);
  say(`wrote ${name} and engine.svg`);
}

function readOptions(args: string[]): Options {
  const { values } = parseArgs({
    args,
    options: {
      '8b': { type: 'boolean', default: false },
      rounds: { type: 'string', default: '3' },
      cases: { type: 'string' },
      quick: { type: 'boolean', default: false },
      save: { type: 'boolean', default: false },
    },
  });
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1) {
    throw new Error(`Expected a whole number from 1 for --rounds but received ${values.rounds}`);
  }
  const names = values.cases?.split(',') ?? CASES.map(({ name }) => name);
  const cases = names.map((name) => {
    const found = CASES.find((item) => item.name === name);
    if (!found) throw new Error(`Unknown case ${name}`);
    return found;
  });
  return { is8B: values['8b'], rounds, cases, quick: values.quick, save: values.save };
}

process.once('SIGINT', () => process.exit(130));
process.once('SIGTERM', () => process.exit(143));
let options: Options | null = null;
try {
  options = readOptions(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n${USAGE}\n`);
  process.exitCode = 2;
}
if (options) await main(options);
