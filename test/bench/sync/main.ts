import { mkdtemp, rm } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { type AdapterFiles, fixtureAdapter, PUSH_PORT, servingUrl } from '../../e2e/client.ts';
import { pushedAdapter } from '../../e2e/manifests.ts';
import { type BaseModel, NAMESPACE, PARROT_MODEL, World } from '../../e2e/world.ts';
import { eventually } from '../../support/eventually.ts';
import { readOptions } from '../../support/options.ts';
import { startServer } from '../../support/server-process.ts';
import { peftAdapter } from '../engine/adapters.ts';
import { ensureModel } from '../engine/model.ts';
import { SHAPE_1B } from '../engine/shape.ts';
import { type Answer, interleaved, medianOf, row, withRest } from './figures.ts';
import { Streams } from './streams.ts';
import { type Call, startSink, startTrainer, type Trainer } from './trainer.ts';

/**
 * From a trainer's memory to the adapter that answers: a push by the Python client, beside what it is to replace (saving
 * to a disk in memory and having a vLLM load the path) and beside the least there is, a PUT of the same bytes to nobody.
 */

const USAGE = `usage: npm run bench -- sync [--pushes N] [--streams N] [--only small|large|operator]
  --pushes    of each kind, 12 by default; they take turns, as a machine is not equally fast all the time
  --streams   that decode beside pushes, 16 by default
  --only      the adapter of 0.15 MB, the one of 84 MB, or one after the other through an operator into two pods, which takes
              a control plane and is left out by default`;

/** Of the 1.1 B Llama: as many bytes as rank 16 has on all projections of Llama 3.1 8B. */
const LARGE_RANK = 60;
/** A disk in memory. */
const SHM = '/dev/shm';
/** Of a stream's context: its prompt, and tokens that are not worth waiting for. */
const SPARE_TOKENS = 64;

interface Options {
  pushes: number;
  streams: number;
}

interface Subject {
  title: string;
  baseModel: BaseModel;
  files: AdapterFiles;
  vocab: number;
  /** Tokens that a stream may have in all. */
  contextTokens: number;
}

/** Where pushes go, and where they are seen. */
interface Target {
  trainer: Trainer;
  serving: string;
  calls: Record<string, Call>;
  push: Call;
}

async function parrot(): Promise<Subject> {
  const files = await fixtureAdapter('json');
  return { title: 'parrot, r 8', baseModel: PARROT_MODEL, files, vocab: 1000, contextTokens: 2048 };
}

async function llama(): Promise<Subject> {
  const { vocab, contextTokens } = SHAPE_1B;
  const files = peftAdapter(SHAPE_1B, 0, { rank: LARGE_RANK });
  const title = `1.1 B Llama, r ${LARGE_RANK}`;
  const baseModel = { name: 'llama', folder: await ensureModel(SHAPE_1B), engine: {} };
  return { title, baseModel, files, vocab, contextTokens };
}

async function onePod(subject: Subject, options: Options): Promise<void> {
  const { folder, name } = subject.baseModel;
  await inFolder(subject, async (dir, trainer) => {
    const server = await startServer([
      ...['--model', folder, '--served-model-name', name, '--log-level', 'warn'],
      ...['--vllm-api', '--lora-root', dir],
    ]);
    try {
      const push = { do: 'push', url: server.admin, token: server.adminToken } as const;
      const load = { do: 'save_and_load', url: server.serving, folder: dir } as const;
      const calls = { 'push, idle': push, 'save, then load the path': load };
      await compare(subject, { trainer, serving: server.serving, calls, push }, options);
    } finally {
      await server.stop();
    }
  });
}

async function twoPods(subject: Subject, options: Options): Promise<void> {
  await inFolder(subject, async (_, trainer) => {
    const world = await World.withPool({ baseModel: subject.baseModel });
    try {
      const token = await world.tokenFor('trainer', 'lorikeet-push');
      await world.allowPush('trainer');
      await world.apply(pushedAdapter('live'));
      const [operator, pod] = [(await world.operators())[0], (await world.servers())[0]];
      const url = `http://${operator?.ip}:${PUSH_PORT}`;
      const push = { do: 'push', url, token, namespace: NAMESPACE } as const;
      await eventually('live is pushed to', { timeoutMs: 30_000 }, () => trainer.ask(push));
      const title = `${subject.title}, two pods behind the operator`;
      const target = { trainer, serving: servingUrl(pod?.ip ?? ''), push };
      await compare({ ...subject, title }, { ...target, calls: { 'push, idle': push } }, options);
    } finally {
      await world.stop();
    }
  });
}

async function inFolder(
  { files }: Subject,
  use: (dir: string, trainer: Trainer) => Promise<void>,
): Promise<void> {
  const dir = await mkdtemp(join(SHM, 'lorikeet-sync-'));
  const trainer = await startTrainer(dir, files);
  try {
    await use(dir, trainer);
  } finally {
    await trainer.stop();
    await rm(dir, { recursive: true });
  }
}

async function compare(subject: Subject, target: Target, { pushes, streams }: Options): Promise<void> {
  const { trainer, serving, calls, push } = target;
  const megabytes = (subject.files.tensors.length / 1e6).toFixed(2);
  console.log(`\n${subject.title}: ${megabytes} MB, medians of ${pushes}`);
  const sink = await startSink();
  const put = { do: 'put', url: sink.url } as const;
  const ask = (asked: Record<string, Call>) => interleaved(trainer, asked, pushes);
  const idle = await ask({ 'PUT to nobody': put, 'the hash alone': { do: 'hash' }, ...calls });
  const bareMs = medianOf(idle['PUT to nobody'] as Answer[]).whole as number;
  for (const [name, answers] of Object.entries(idle)) row(name, withRest(medianOf(answers)), bareMs);

  const decoding = new Streams(serving, {
    models: [subject.baseModel.name, 'live'],
    count: streams,
    maxTokens: subject.contextTokens - SPARE_TOKENS,
    vocab: subject.vocab,
  });
  await decoding.started;
  const sinceMs = performance.now();
  const busy = await ask({ busy: push });
  const { largestMs, stepMs } = await decoding.stop(sinceMs);
  row(`push, ${streams} streams decode`, withRest(medianOf(busy.busy as Answer[])), bareMs);
  const gap = (largestMs / stepMs).toFixed(1);
  console.log(`    largest gap between two tokens: ${gap} engine steps of ${stepMs.toFixed(1)} ms`);
  await sink.stop();
}

async function main({ only, ...options }: Options & { only: string }): Promise<void> {
  console.log(`${cpus()[0]?.model}, ${cpus().length} processors; × as long as the PUT to nobody`);
  if (only === '' || only === 'small') await onePod(await parrot(), options);
  if (only === '' || only === 'large') await onePod(await llama(), options);
  if (only === 'operator') {
    await twoPods(await parrot(), options);
    await twoPods(await llama(), options);
  }
}

const values = readOptions(USAGE, {
  options: {
    pushes: { type: 'string', default: '12' },
    streams: { type: 'string', default: '16' },
    only: { type: 'string', default: '' },
    help: { type: 'boolean', default: false },
  },
});
const { only, help } = values;
const [pushes, streams] = [Number(values.pushes), Number(values.streams)];
if (pushes >= 1 && streams >= 1 && ['', 'small', 'large', 'operator'].includes(only) && !help) {
  await main({ pushes, streams, only });
} else {
  process.stderr.write(`${USAGE}\n`);
  process.exitCode = 2;
}
