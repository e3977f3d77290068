import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { PutAdapterReply } from '../contract/adapter-api.ts';
import { CONFIG_BYTES_MAX } from '../contract/format/adapter-config.ts';
import { requireBodySize } from '../transfer/limits.ts';
import { Receiver } from './receive.ts';
import type { Registry } from './registry.ts';

/** Stages and activates an adapter that PEFT saved in a directory; for adapters named on the command line. */
export async function putDirectory(registry: Registry, name: string, dir: string): Promise<PutAdapterReply> {
  registry.requireName(name);
  const { geometry } = registry.baseModel;
  const { maxRank, maxAdapterBytes } = registry.limits;
  const config = await readBounded(join(dir, 'adapter_config.json'), CONFIG_BYTES_MAX);
  const body = await readBounded(join(dir, 'adapter_model.safetensors'), maxAdapterBytes);
  const receiver = new Receiver({
    tier: registry.tier,
    limits: { geometry, maxRank, maxAdapterBytes },
    configHeader: config.toString('base64url'),
    contentLength: body.length,
  });
  try {
    receiver.push(body);
    const received = receiver.finish();
    return await registry.put({ name, received, step: null, allowZeroEffect: false }, {});
  } catch (error) {
    receiver.abort();
    throw error;
  }
}

async function readBounded(path: string, bytesMax: number): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    requireBodySize((await file.stat()).size, bytesMax);
    return await file.readFile();
  } finally {
    await file.close();
  }
}
