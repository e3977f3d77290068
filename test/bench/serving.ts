import { parseArgs } from 'node:util';
import { type ServerProcess, startServer } from '../support/server-process.ts';
import { adapterName, peftAdapter } from './engine/adapters.ts';
import { say } from './engine/cache.ts';
import { promptTokens } from './engine/cases.ts';
import { ensureModel } from './engine/model.ts';
import { Noise } from './engine/noise.ts';
import { SHAPE_1B, SHAPE_8B, type Shape } from './engine/shape.ts';
import type { Trace } from './engine/trace.ts';
import { putAdapter } from './put-adapter.ts';
import { type Spread, spreadOf } from './spread.ts';
import { streamCompletion } from './stream-completion.ts';

/**
 * A whole server under load, as its clients see it: time to the first token and between tokens, for the base, for one
 * adapter, for many, and for many while revisions are pushed.
 */

const USAGE = `usage: npm run bench -- serving [--8b] [--backend NAME] [--adapters N] [--streams N] [--tokens N] [--pushes N]
  --8b        the shape of Llama 3.1 8B instead of one with 1.1 billion weights
  --backend   as of the server, auto by default
  --adapters  rank 16 on all seven modules, 8 by default
  --streams   requests at once, 8 by default
  --tokens    of each answer, 32 by default
  --pushes    of a revision each while all streams run, 8 by default
Prints a table on stderr and JSON on stdout.`;

const BASE = 'base';
const PROMPT_TOKENS = 128;
const KV_BYTES_PER_ELEMENT = 4;

interface Options {
  shape: Shape;
  backend: string;
  adapters: number;
  streams: number;
  tokens: number;
  pushes: number;
}

interface Load {
  firstTokenMs: Spread;
  betweenTokensMs: Spread;
  tokensPerSecond: number;
}

async function main(options: Options): Promise<void> {
  const { shape, adapters, tokens, pushes } = options;
  const dir = await ensureModel(shape);
  const startedMs = performance.now();
  const server = await startServer([...flags(dir, options)]);
  try {
    const loads: Record<string, Load> = {};
    const measure = async (name: string, modelOf: (stream: number) => string): Promise<Load> => {
      const load = figuresOf(await ask(server, options, tokens, modelOf));
      loads[name] = load;
      const row = [
        load.firstTokenMs.p50,
        load.firstTokenMs.p99,
        load.betweenTokensMs.p50,
        load.betweenTokensMs.p99,
      ];
      say(
        `${name.padEnd(28)} ${[...row, load.tokensPerSecond].map((n) => n.toFixed(1).padStart(9)).join('')}`,
      );
      return load;
    };
    const openMs = performance.now() - startedMs;
    await ask(server, options, 2, () => BASE);
    say(`${'ms: first token, between'.padEnd(28)}       p50      p99      p50      p99 tokens/s`);
    await measure('base', () => BASE);
    const noise = new Noise();
    const push = async (name: string, index: number): Promise<number> => {
      const files = peftAdapter(shape, index, { noise });
      const beganMs = performance.now();
      await putAdapter(`${server.admin}/v1/adapters/${name}`, server.adminToken, files);
      return performance.now() - beganMs;
    };
    const loadedMs: number[] = [];
    for (let index = 0; index < adapters; index++) loadedMs.push(await push(adapterName(index), index));
    await measure('base beside adapters', () => BASE);
    await measure('one adapter', () => adapterName(0));
    const spreadOut = (stream: number) => adapterName(stream % adapters);
    await measure(`${adapters} adapters`, spreadOut);
    const pushedMs: number[] = [];
    const pushing = (async () => {
      for (let i = 0; i < pushes; i++) pushedMs.push(await push(adapterName(i % adapters), adapters + i));
    })();
    await Promise.all([measure(`${adapters} adapters, pushes`, spreadOut), pushing]);
    const adapterMegabytes = peftAdapter(shape, 0, { noise }).tensors.length / 1e6;
    const pushMs = { megabytes: adapterMegabytes, idle: spreadOf(loadedMs), underLoad: spreadOf(pushedMs) };
    say(
      `push of ${adapterMegabytes.toFixed(1)} MB: ${pushMs.idle.p50.toFixed(1)} ms, under load ${pushMs.underLoad.p50.toFixed(1)} ms`,
    );
    const {
      shape: { name },
      ...asked
    } = options;
    process.stdout.write(
      `${JSON.stringify({ shape: name, ...asked, promptTokens: PROMPT_TOKENS, openMs, loads, pushMs }, null, 2)}\n`,
    );
  } finally {
    await server.stop();
  }
}

function* flags(dir: string, { shape, backend, adapters, streams, tokens }: Options): Generator<string> {
  const { layers, kvHeads, headDim } = shape;
  const kvTokens = (streams + 1) * (PROMPT_TOKENS + tokens + 32);
  const values = {
    model: dir,
    'served-model-name': BASE,
    backend,
    slots: adapters + 2,
    'max-rank': 16,
    'max-batch': streams,
    'host-bytes': '16Gi',
    'kv-bytes': kvTokens * layers * 2 * kvHeads * headDim * KV_BYTES_PER_ELEMENT,
    'log-level': 'warn',
  };
  for (const [name, value] of Object.entries(values)) yield* [`--${name}`, String(value)];
}

function ask(
  server: ServerProcess,
  { shape, streams }: Options,
  tokens: number,
  modelOf: (stream: number) => string,
): Promise<Trace[]> {
  return Promise.all(
    Array.from({ length: streams }, (_, stream) =>
      streamCompletion(server.serving, {
        model: modelOf(stream),
        prompt: promptTokens(stream, PROMPT_TOKENS, shape.vocab),
        max_tokens: tokens,
      }),
    ),
  );
}

function figuresOf(traces: Trace[]): Load {
  const times = traces.flatMap(({ timesMs }) => timesMs);
  const began = Math.min(...traces.map(({ submittedMs }) => submittedMs));
  return {
    firstTokenMs: spreadOf(
      traces.map(({ submittedMs, timesMs }) => (timesMs[0] ?? Number.NaN) - submittedMs),
    ),
    betweenTokensMs: spreadOf(
      traces.flatMap(({ timesMs }) => timesMs.slice(1).map((ms, i) => ms - (timesMs[i] as number))),
    ),
    tokensPerSecond: (1000 * times.length) / (Math.max(...times) - began),
  };
}

function parseOptions(): Options {
  const { values } = parseArgs({
    options: {
      '8b': { type: 'boolean', default: false },
      backend: { type: 'string', default: 'auto' },
      adapters: { type: 'string', default: '8' },
      streams: { type: 'string', default: '8' },
      tokens: { type: 'string', default: '32' },
      pushes: { type: 'string', default: '8' },
    },
  });
  const count = (name: 'adapters' | 'streams' | 'tokens' | 'pushes') => {
    const n = Number(values[name]);
    if (!Number.isInteger(n) || n < 1) throw new Error(`Expected a whole number from 1 on for --${name}`);
    return n;
  };
  return {
    shape: values['8b'] ? SHAPE_8B : SHAPE_1B,
    backend: values.backend,
    adapters: count('adapters'),
    streams: count('streams'),
    tokens: count('tokens'),
    pushes: count('pushes'),
  };
}

let options: Options | null = null;
try {
  options = parseOptions();
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n${USAGE}\n`);
  process.exitCode = 2;
}
if (options) await main(options);
