import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { CONFIG_BYTES_MAX } from '../contract/format/adapter-config.ts';
import { requireBodySize } from './limits.ts';

/** What is read of a file at a time. */
const CHUNK_BYTES = 1 << 20;

/** Opens one file of an adapter by its name, to be read. */
export type OpenFile = (name: string) => Promise<FileHandle>;

export function filesIn(dir: string): OpenFile {
  return (name) => open(join(dir, name), 'r');
}

export async function readConfigFile(openFile: OpenFile): Promise<Buffer> {
  const file = await openFile('adapter_config.json');
  try {
    const chunks: Buffer[] = [];
    await readBounded(file, CONFIG_BYTES_MAX, (chunk) => chunks.push(Buffer.from(chunk)));
    return Buffer.concat(chunks);
  } finally {
    await file.close();
  }
}

/** To be closed by the caller. */
export function openTensors(openFile: OpenFile): Promise<FileHandle> {
  return openFile('adapter_model.safetensors');
}

/** As many bytes as the file had at first, in chunks that are good until the next one. */
export async function readBounded(
  file: FileHandle,
  bytesMax: number,
  take: (chunk: Buffer) => void,
): Promise<void> {
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
