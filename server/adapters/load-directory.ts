import type { FileHandle } from 'node:fs/promises';
import type { PutAdapterReply } from '../contract/adapter-api.ts';
import { type OpenFile, openTensors, readBounded, readConfigFile } from '../transfer/adapter-folder.ts';
import { hashHere } from '../transfer/hash-thread.ts';
import { type ReceivedAdapter, Receiver } from './receive.ts';
import type { Registry } from './registry.ts';

/** Stages and activates an adapter that PEFT saved in a directory; its bytes are checked as they are read. */
export async function putDirectory(
  registry: Registry,
  name: string,
  openFile: OpenFile,
  { allowZeroEffect = false } = {},
): Promise<PutAdapterReply> {
  registry.requireName(name);
  const config = await readConfigFile(openFile);
  const file = await openTensors(openFile);
  try {
    const received = await receive(registry, config, file);
    return await registry.put({ name, received, step: null, allowZeroEffect }, {});
  } finally {
    await file.close();
  }
}

async function receive(registry: Registry, config: Buffer, file: FileHandle): Promise<ReceivedAdapter> {
  const { geometry } = registry.baseModel;
  const { maxRank, maxAdapterBytes } = registry.limits;
  const receiver = new Receiver({
    tier: registry.tier,
    allocate: registry.allocate,
    hash: hashHere(),
    limits: { geometry, maxRank, maxAdapterBytes },
    configHeader: config.toString('base64url'),
    contentLength: (await file.stat()).size,
  });
  try {
    await readBounded(file, maxAdapterBytes, (chunk) => receiver.push(chunk));
    return await receiver.finish();
  } catch (error) {
    receiver.abort();
    throw error;
  }
}
