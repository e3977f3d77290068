import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { type ServerProcess, startServer } from '../support/server-process.ts';
import { adapterName, peftAdapter } from './engine/adapters.ts';
import { say } from './engine/cache.ts';
import { promptTokens } from './engine/cases.ts';
import { ensureModel } from './engine/model.ts';
import { Noise } from './engine/noise.ts';
import { SHAPE_1B } from './engine/shape.ts';
import { putAdapter } from './put-adapter.ts';
import { type Spread, spreadOf } from './spread.ts';
import { streamCompletion } from './stream-completion.ts';

/**
 * Twice as many adapters as slots, a client for each, beside the same load on a server that has a slot for every adapter;
 * then pushes to names that all have a running request, with no slot to spare.
 */

const USAGE = `usage: npm run bench -- slots [--slots N] [--seconds N] [--pause SHARE] [--tokens N]
  --slots     of the smaller server, 4 by default; there are twice as many adapters
  --seconds   of load on each server, 60 by default
  --pause     between a client's requests, as a share of how long the last one took; 1 by default, 0 for none
  --tokens    of each answer, 16 by default
Prints a table on stderr and JSON on stdout.`;

const PROMPT_TOKENS = 64;
const PUSHES = 8;
const SHAPE = SHAPE_1B;

interface Options {
  slots: number;
  seconds: number;
  pause: number;
  tokens: number;
}

interface Load {
  slots: number;
  answered: { least: number; most: number; all: number };
  refused: number;
  firstTokenMs: Spread;
}

async function main(options: Options): Promise<void> {
  const dir = await ensureModel(SHAPE);
  const names = Array.from({ length: 2 * options.slots }, (_, i) => adapterName(i));
  const noise = new Noise();
  const revisionOf = (index: number) => peftAdapter(SHAPE, index, { noise });
  const withServer = async <T>(slots: number, use: (server: ServerProcess) => Promise<T>): Promise<T> => {
    const server = await startServer(flags(dir, slots));
    try {
      return await use(server);
    } finally {
      await server.stop();
    }
  };
  const put = (server: ServerProcess, name: string, index: number) =>
    putAdapter(`${server.admin}/v1/adapters/${name}`, server.adminToken, revisionOf(index));

  const loaded = (slots: number) =>
    withServer(slots, async (server) => {
      for (const [index, name] of names.entries()) await put(server, name, index);
      return figures(slots, await askAll(server, names, options, options.seconds * 1000));
    });
  const resident = await loaded(names.length);
  const turns = await loaded(options.slots);
  const ttftRatio = turns.firstTokenMs.p50 / resident.firstTokenMs.p50;
  for (const load of [resident, turns]) {
    const { answered, refused, firstTokenMs } = load;
    say(
      `${names.length} adapters, ${String(load.slots).padStart(2)} slots: ${answered.all} answered ` +
        `(least ${answered.least}, most ${answered.most} of an adapter), ${refused} refused, ` +
        `first token ${firstTokenMs.p50.toFixed(0)} ms, p99 ${firstTokenMs.p99.toFixed(0)} ms`,
    );
  }
  say(`first token, half as many slots as adapters / a slot for each: ${ttftRatio.toFixed(2)} ×`);

  const busy = names.slice(0, options.slots);
  const pushes = await withServer(options.slots, async (server) => {
    for (const [index, name] of busy.entries()) await put(server, name, index);
    const stop = new AbortController();
    const asking = askAll(server, busy, { ...options, pause: 0 }, Number.POSITIVE_INFINITY, stop.signal);
    const ms: number[] = [];
    for (let i = 0; i < PUSHES; i++) {
      const beganMs = performance.now();
      await put(server, busy[i % busy.length] as string, names.length + i);
      ms.push(performance.now() - beganMs);
    }
    stop.abort();
    const { refused } = figures(options.slots, await asking);
    return { pushed: ms.length, refused, ms: spreadOf(ms) };
  });
  say(
    `${busy.length} busy names, ${options.slots} slots: ${pushes.pushed} of ${PUSHES} pushes taken, ` +
      `${pushes.ms.p50.toFixed(0)} ms, ${pushes.refused} requests refused meanwhile`,
  );
  process.stdout.write(`${JSON.stringify({ ...options, resident, turns, ttftRatio, pushes }, null, 2)}\n`);
}

function flags(dir: string, slots: number): string[] {
  const values = {
    model: dir,
    'served-model-name': 'base',
    slots,
    'max-rank': 16,
    'host-bytes': '4Gi',
    'kv-bytes': '512Mi',
    'log-level': 'warn',
  };
  return Object.entries(values).flatMap(([name, value]) => [`--${name}`, String(value)]);
}

interface Client {
  answered: number;
  refused: number;
  firstTokenMs: number[];
}

/** One client for each name; none begins a request after `forMs` or the signal. */
function askAll(
  server: ServerProcess,
  names: string[],
  { pause, tokens }: Options,
  forMs: number,
  signal?: AbortSignal,
): Promise<Client[]> {
  const endMs = performance.now() + forMs;
  return Promise.all(
    names.map(async (model, index) => {
      const client: Client = { answered: 0, refused: 0, firstTokenMs: [] };
      for (let i = 0; performance.now() < endMs && !signal?.aborted; i++) {
        const beganMs = performance.now();
        const prompt = promptTokens(index * 1000 + i, PROMPT_TOKENS, SHAPE.vocab);
        await streamCompletion(server.serving, { model, prompt, max_tokens: tokens }).then(
          ({ submittedMs, timesMs }) => {
            client.answered += 1;
            client.firstTokenMs.push((timesMs[0] ?? Number.NaN) - submittedMs);
          },
          () => {
            client.refused += 1;
          },
        );
        await sleep(pause * (performance.now() - beganMs));
      }
      return client;
    }),
  );
}

function figures(slots: number, clients: Client[]): Load {
  const answered = clients.map((client) => client.answered);
  return {
    slots,
    answered: {
      least: Math.min(...answered),
      most: Math.max(...answered),
      all: answered.reduce((sum, n) => sum + n, 0),
    },
    refused: clients.reduce((sum, client) => sum + client.refused, 0),
    firstTokenMs: spreadOf(clients.flatMap((client) => client.firstTokenMs)),
  };
}

function parseOptions(): Options {
  const { values } = parseArgs({
    options: {
      slots: { type: 'string', default: '4' },
      seconds: { type: 'string', default: '60' },
      pause: { type: 'string', default: '1' },
      tokens: { type: 'string', default: '16' },
    },
  });
  const number = (name: keyof typeof values, least: number) => {
    const n = Number(values[name]);
    if (!(n >= least)) throw new Error(`Expected a number from ${least} on for --${name}`);
    return n;
  };
  return {
    slots: number('slots', 1),
    seconds: number('seconds', 1),
    pause: number('pause', 0),
    tokens: number('tokens', 1),
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
