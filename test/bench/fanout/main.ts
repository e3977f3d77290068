import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { request } from 'undici';
import { TOKENS } from '../../operator/push/fake-reviews.ts';
import { PATH } from '../../operator/push/raw-client.ts';
import { readOptions } from '../../support/options.ts';
import { peftAdapter } from '../engine/adapters.ts';
import type { Cost } from './operator.ts';
import { SHAPE } from './subject.ts';

/**
 * A push through the operator into many pods: how long it takes, and how many bytes leave the operator. Trainer, operator
 * and all pods, which are the real admin API without a model, share this machine: so many pods at the speed of memory
 * would measure its processors. The trainer therefore sends at the rate of a network, and without a rate on request.
 */

const USAGE = `usage: npm run bench -- fanout [--pushes N] [--rank N] [--rate MB] [--pods N,N,…]
  --pushes    of each kind, 3 by default
  --rank      of the adapter on all projections of the 1.1 B Llama: 2 by default, 2.8 MB
  --rate      of the trainer in MB a second, 1 by default; 0 = as fast as it goes
  --pods      1,2,8,32,64 by default`;

const SLICE_BYTES = 64 << 10;

interface Options {
  pushes: number;
  rank: number;
  rate: number;
}

async function measure(count: number, options: Options): Promise<void> {
  const pods = started('./pods.ts', [String(count)]);
  const { urls } = (await told(pods)) as { urls: string[] };
  const operator = started('./operator.ts', urls);
  const { port } = (await told(operator)) as { port: number };
  try {
    await push(port, -1, options);
    const times: number[] = [];
    const before = await costOf(operator);
    let bytes = 0;
    for (let index = 0; index < options.pushes; index += 1) {
      const startMs = performance.now();
      bytes += await push(port, index, options);
      times.push(performance.now() - startMs);
    }
    const after = await costOf(operator);
    const copies = (after.outBytes - before.outBytes) / bytes;
    const cpuMs = (after.cpuMs - before.cpuMs) / options.pushes;
    const ms = times.sort((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0;
    console.log(
      `${String(count).padStart(4)} pods ${ms.toFixed(0).padStart(7)} ms   ${copies.toFixed(2).padStart(6)} copies leave the operator   ${cpuMs.toFixed(0).padStart(6)} ms of its processor   ${(after.rssBytes / 1e6).toFixed(0).padStart(4)} MB`,
    );
  } finally {
    operator.disconnect();
    pods.disconnect();
  }
}

async function push(port: number, index: number, { rank, rate }: Options): Promise<number> {
  const { config, tensors } = peftAdapter(SHAPE, index + 1, { rank });
  const response = await request(`http://127.0.0.1:${port}${PATH}`, {
    method: 'PUT',
    headers: {
      authorization: `Bearer ${TOKENS.trainer}`,
      'x-lora-config': config.toString('base64url'),
      'content-length': String(tensors.length),
    },
    body: rate === 0 ? tensors : Readable.from(paced(tensors, rate * 1000)),
  });
  const reply = await response.body.text();
  if (response.statusCode !== 200) throw new Error(`${response.statusCode} ${reply.slice(0, 500)}`);
  return tensors.length;
}

async function* paced(bytes: Buffer, bytesPerMs: number): AsyncGenerator<Uint8Array> {
  const startMs = performance.now();
  for (let at = 0; at < bytes.length; at += SLICE_BYTES) {
    const aheadMs = at / bytesPerMs - (performance.now() - startMs);
    if (aheadMs > 1) await delay(aheadMs);
    yield bytes.subarray(at, at + SLICE_BYTES);
  }
}

function started(file: string, args: string[]): ChildProcess {
  return fork(new URL(file, import.meta.url), args);
}

async function told(child: ChildProcess): Promise<unknown> {
  const [message] = await once(child, 'message');
  return message;
}

async function costOf(operator: ChildProcess): Promise<Cost> {
  operator.send('cost');
  return (await told(operator)) as Cost;
}

async function main(counts: number[], options: Options): Promise<void> {
  const { tensors } = peftAdapter(SHAPE, 0, options);
  const rate = options.rate === 0 ? 'as fast as it goes' : `at ${options.rate} MB/s`;
  console.log(
    `${cpus()[0]?.model}, ${cpus().length} processors; ${(tensors.length / 1e6).toFixed(1)} MB ${rate}`,
  );
  for (const count of counts) {
    await measure(count, options);
  }
}

const values = readOptions(USAGE, {
  options: {
    pushes: { type: 'string', default: '3' },
    rank: { type: 'string', default: '2' },
    rate: { type: 'string', default: '1' },
    pods: { type: 'string', default: '1,2,8,32,64' },
    help: { type: 'boolean', default: false },
  },
});
const [pushes, rank, rate] = [Number(values.pushes), Number(values.rank), Number(values.rate)];
const counts = values.pods.split(',').map(Number);
if (
  pushes >= 1 &&
  rank >= 1 &&
  rank <= 60 &&
  rate >= 0 &&
  counts.every((count) => count >= 1 && count <= 250)
) {
  await main(counts, { pushes, rank, rate });
} else {
  process.stderr.write(`${USAGE}\n`);
  process.exitCode = 2;
}
