import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { benchCache, makeOnce, say } from './cache.ts';
import { type Case, PREFILL_TOKENS } from './cases.ts';
import { parameterCounts, type Shape } from './shape.ts';

const SOURCE = resolve(import.meta.dirname, '../../../native/bench');
const run = promisify(execFile);

/** What the machine can do at most; null where the processor has no such instructions. */
export interface Floors {
  readGBps: number;
  fmaGflops: number;
  dotGflops: number | null;
  amxGflops: number | null;
  threads: number;
}

export async function measureFloors(): Promise<Floors> {
  const { stdout } = await run(join(await build(), 'floors'), [String(availableParallelism())]);
  return JSON.parse(stdout) as Floors;
}

/** The best of each: a limit is what was reached once. */
export function bestOf(floors: Floors[]): Floors {
  const best = (pick: (floor: Floors) => number | null) =>
    Math.max(...floors.map((floor) => pick(floor) ?? 0));
  return {
    readGBps: best(({ readGBps }) => readGBps),
    fmaGflops: best(({ fmaGflops }) => fmaGflops),
    dotGflops: best(({ dotGflops }) => dotGflops) || null,
    amxGflops: best(({ amxGflops }) => amxGflops) || null,
    threads: floors[0]?.threads ?? 0,
  };
}

export interface Limit {
  tokensPerSecond: number;
  by: 'memory' | 'arithmetic';
}

/**
 * The most tokens per second that the machine could do: each weight is read once per step, as bf16, and multiplied
 * once per row with the best instructions there are. The cache of keys and values and attention itself are left out;
 * with sequences as short as these they are below 2 %.
 */
export function limitOf(item: Case, shape: Shape, floors: Floors): Limit {
  const { layers, head, adapter } = parameterCounts(shape);
  const rows = item.kind === 'prefill' ? PREFILL_TOKENS : item.sequences;
  const headRows = item.kind === 'prefill' ? 1 : item.sequences;
  const adapterRows = item.adapters === 0 ? 0 : rows;
  const bytes = 2 * (layers + head + item.adapters * adapter);
  const flops = 2 * (rows * layers + headRows * head + adapterRows * adapter);
  const memorySeconds = bytes / (floors.readGBps * 1e9);
  const peakGflops = floors.amxGflops ?? floors.dotGflops ?? floors.fmaGflops;
  const arithmeticSeconds = flops / (peakGflops * 1e9);
  return {
    tokensPerSecond: rows / Math.max(memorySeconds, arithmeticSeconds),
    by: memorySeconds >= arithmeticSeconds ? 'memory' : 'arithmetic',
  };
}

async function build(): Promise<string> {
  const hash = createHash('sha256');
  for (const name of ['floors.cc', 'CMakeLists.txt']) hash.update(await readFile(join(SOURCE, name)));
  const key = hash.update(process.arch).digest('hex').slice(0, 16);
  return makeOnce(join(benchCache(), `floors-${key}`), async (partial) => {
    say('building what measures the limits of the machine');
    await run('cmake', ['-S', SOURCE, '-B', partial, '-DCMAKE_BUILD_TYPE=Release']);
    await run('cmake', ['--build', partial]);
  });
}
