/**
 * `fill-tier.ts ROUNDS FOLDER...` fills a host tier with revisions of the folders, and in each further round replaces
 * all of them. Prints by how much the process grew, and by how much the tier says that it did. Needs `--expose-gc`.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { AdapterFiles } from '../../support/adapter-files.ts';
import { bench, received } from './bench.ts';

const HOST_BYTES = 128 << 20;
const ADAPTERS = resolve(import.meta.dirname, '../../fixtures/parrot/adapters');

const collect = globalThis.gc as unknown as (options: object) => Promise<void>;
const [rounds, ...folders] = [Number(process.argv[2]), ...process.argv.slice(3)];
const kinds = folders.map(
  (folder): AdapterFiles => ({
    tensors: readFileSync(join(ADAPTERS, folder, 'adapter_model.safetensors')),
    config: readFileSync(join(ADAPTERS, folder, 'adapter_config.json')),
  }),
);
const { registry } = bench({ hostBytes: HOST_BYTES });

/** Other bytes for each number: the last value, which stays an ordinary number. */
function numbered({ tensors, config }: AdapterFiles, number: number): AdapterFiles {
  const body = Buffer.from(tensors);
  body.writeUInt16LE(number & 0x3fff, body.length - 2);
  return { tensors: body, config };
}

let staged = 0;
async function stageNext(): Promise<void> {
  const files = numbered(kinds[staged % kinds.length] as AdapterFiles, staged);
  const request = { received: await received(registry, files), step: null, allowZeroEffect: true };
  await registry.stage({ name: `adapter-${staged}`, ...request });
  staged += 1;
}

async function stageUpTo(tierBytes: number): Promise<void> {
  while (registry.tier.usedBytes < tierBytes) await stageNext();
}

async function measure(): Promise<{ process: number; tier: number }> {
  for (let round = 0; round < 3; round += 1) {
    await collect({ type: 'major', execution: 'async', flavor: 'last-resort' });
    await delay(20);
  }
  return { process: process.memoryUsage.rss(), tier: registry.tier.usedBytes };
}

await stageUpTo(HOST_BYTES / 4);
const begun = await measure();
await stageUpTo(HOST_BYTES * 0.98);
const full = await measure();
const stagedMax = rounds * staged;
while (staged < stagedMax) await stageNext();
const replaced = await measure();
console.log(
  JSON.stringify({
    filling: { process: full.process - begun.process, tier: full.tier - begun.tier },
    replacing: { process: replaced.process - full.process, tier: replaced.tier - full.tier },
  }),
);
