import { open } from 'node:fs/promises';
import { createEngine } from '../../../native/index.ts';
import type { Engine, EngineEvent, Target } from '../../../native/types.ts';
import { GREEDY } from '../../native/support.ts';
import { ADAPTERS, adapterBody, adapterModules, adapterName } from './adapters.ts';
import { adapterOf, type Case } from './cases.ts';
import { readJob } from './child.ts';
import { Noise } from './noise.ts';
import type { OursJob } from './ours.ts';
import type { Shape } from './shape.ts';
import { type Generate, measureCase, type Trace, type TurnResult } from './trace.ts';

const READ_BYTES = 16 << 20;

type Take = (event: EngineEvent, nowMs: number) => void;

async function turn({ shape, options, cases, effort }: OursJob): Promise<TurnResult> {
  const readFileMs = await timeReading(options.model.files);
  const live = new Map<number, Take>();
  const openedMs = performance.now();
  const engine = createEngine(options, (events) => {
    const nowMs = performance.now();
    for (const event of events) live.get(event.id)?.(event, nowMs);
  });
  const phases: Record<string, Record<string, number>> = {};
  const result: TurnResult = {
    about: `${engine.info.backend}, ${engine.info.dtype}`,
    rates: {},
    firstTokens: [],
    load: { openMs: performance.now() - openedMs, readFileMs },
    phases,
  };
  const generate = generateWith(engine, live);
  const measure = async (item: Case) => {
    const before = engine.snapshot().phasesMs;
    const { rate, firstTokens } = await measureCase(item, effort, shape.vocab, generate);
    result.rates[item.name] = rate;
    phases[item.name] = sharesSince(before, engine.snapshot().phasesMs);
    if (item.name === 'decode-16') result.firstTokens = firstTokens;
  };
  try {
    for (const item of cases.filter(({ resident }) => !resident)) await measure(item);
    const later = cases.filter(({ resident }) => resident);
    if (later.length > 0) await loadAdapters(engine, shape);
    for (const item of later) await measure(item);
  } finally {
    await engine.close();
  }
  return result;
}

function sharesSince(before: Record<string, number>, after: Record<string, number>): Record<string, number> {
  const spent = Object.entries(after).map(([name, ms]): [string, number] => [name, ms - (before[name] ?? 0)]);
  const total = spent.reduce((sum, [, ms]) => sum + ms, 0);
  return Object.fromEntries(spent.map(([name, ms]) => [name, ms / total]));
}

async function loadAdapters(engine: Engine, shape: Shape): Promise<void> {
  const modules = adapterModules(shape);
  const noise = new Noise();
  for (let index = 0; index < ADAPTERS; index++) {
    const name = adapterName(index);
    await engine.stage(name, adapterBody(shape, index, { noise }), modules);
    await engine.activate(name, name, false);
  }
}

function generateWith(engine: Engine, live: Map<number, Take>): Generate {
  let nextId = 0;
  return (prompts, maxTokens, item) =>
    Promise.all(
      prompts.map((prompt, sequence) => {
        const adapter = adapterOf(item, sequence);
        const target: Target =
          adapter === null ? { kind: 'base' } : { kind: 'adapter', name: adapterName(adapter) };
        const id = ++nextId;
        const trace: Trace = { submittedMs: performance.now(), timesMs: [], firstToken: null };
        return new Promise<Trace>((settle, fail) => {
          live.set(id, (event, nowMs) => {
            if (event.type === 'token') {
              trace.firstToken ??= event.token;
              trace.timesMs.push(nowMs);
            } else if (event.type === 'finished') {
              live.delete(id);
              settle(trace);
            } else if (event.type === 'failed') {
              fail(new Error(`${event.code}: ${event.message}`));
            }
          });
          engine.submit({ ...GREEDY, stopTokens: [], id, prompt, target, maxTokens });
        });
      }),
    );
}

/** Milliseconds to read the files once, when they are in the page cache already. */
async function timeReading(paths: string[]): Promise<number> {
  const buffer = Buffer.alloc(READ_BYTES);
  const readAll = async () => {
    for (const path of paths) {
      await using file = await open(path);
      while ((await file.read(buffer, 0, READ_BYTES)).bytesRead > 0);
    }
  };
  await readAll();
  const startedMs = performance.now();
  await readAll();
  return performance.now() - startedMs;
}

process.stdout.write(`${JSON.stringify(await turn(await readJob<OursJob>()))}\n`);
