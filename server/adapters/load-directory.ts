import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import type { PutAdapterReply } from '../contract/adapter-api.ts';
import { CONFIG_BYTES_MAX } from '../contract/format/adapter-config.ts';
import { requireBodySize } from '../transfer/limits.ts';
import { type ReceivedAdapter, Receiver } from './receive.ts';
import type { Registry } from './registry.ts';

/** What is read of a file at a time. */
const CHUNK_BYTES = 1 << 20;

/** Opens one file of an adapter by its name, to be read. */
export type OpenFile = (name: string) => Promise<FileHandle>;

export function filesIn(dir: string): OpenFile {
  return (name) => open(join(dir, name), 'r');
}

/** Stages and activates an adapter that PEFT saved in a directory; its bytes are checked as they are read. */
export async function putDirectory(
  registry: Registry,
  name: string,
  openFile: OpenFile,
  { allowZeroEffect = false } = {},
): Promise<PutAdapterReply> {
  registry.requireName(name);
  const config = await withFile(openFile, 'adapter_config.json', readConfig);
  const received = await withFile(openFile, 'adapter_model.safetensors', (file) =>
    receive(registry, config, file),
  );
  return await registry.put({ name, received, step: null, allowZeroEffect }, {});
}

async function withFile<T>(openFile: OpenFile, name: string, use: (file: FileHandle) => Promise<T>) {
  const file = await openFile(name);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

async function readConfig(file: FileHandle): Promise<Buffer> {
  const chunks: Buffer[] = [];
  await readBounded(file, CONFIG_BYTES_MAX, (chunk) => chunks.push(Buffer.from(chunk)));
  return Buffer.concat(chunks);
}

async function receive(registry: Registry, config: Buffer, file: FileHandle): Promise<ReceivedAdapter> {
  const { geometry } = registry.baseModel;
  const { maxRank, maxAdapterBytes } = registry.limits;
  const receiver = new Receiver({
    tier: registry.tier,
    limits: { geometry, maxRank, maxAdapterBytes },
    configHeader: config.toString('base64url'),
    contentLength: (await file.stat()).size,
  });
  try {
    await readBounded(file, maxAdapterBytes, (chunk) => receiver.push(chunk));
    return receiver.finish();
  } catch (error) {
    receiver.abort();
    throw error;
  }
}

/** As many bytes as the file had at first, in chunks that are good until the next one. */
async function readBounded(file: FileHandle, bytesMax: number, take: (chunk: Buffer) => void): Promise<void> {
  const { size } = await file.stat();
  requireBodySize(size, bytesMax);
  const room = Buffer.allocUnsafe(Math.min(size, CHUNK_BYTES));
  for (let at = 0; at < size; ) {
    const { bytesRead } = await file.read(room, 0, Math.min(room.length, size - at), at);
    if (bytesRead === 0) return;
    take(room.subarray(0, bytesRead));
    at += bytesRead;
  }
}
