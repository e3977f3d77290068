import { type FileHandle, open, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import {
  type AdapterConfig,
  CONFIG_BYTES_MAX,
  parseAdapterConfig,
} from '../../server/contract/format/adapter-config.ts';
import {
  headerLength,
  parseHeader,
  requireExactLength,
  type SafetensorsHeader,
} from '../../server/contract/format/safetensors.ts';
import { readBounded } from '../../server/transfer/adapter-folder.ts';
import { CommandFailure } from './failure.ts';

const TENSORS = 'adapter_model.safetensors';
const CONFIG = 'adapter_config.json';
/** What PEFT saves with safe_serialization=False. */
const PICKLE = 'adapter_model.bin';

/** An adapter on disk: its header has been read and fits the file, its tensors are read where they are wanted. */
export interface AdapterFiles {
  /** Of the safetensors file. */
  path: string;
  file: FileHandle;
  header: SafetensorsHeader;
  bytes: number;
  /** Null: there is none beside it, nor in its header. */
  config: AdapterConfig | null;
  /** Whether the config is in the header of the file itself, and so goes with it. */
  isConfigInside: boolean;
}

/** A folder as PEFT saves it, or a safetensors file. To be closed by the caller. */
export async function openAdapter(path: string, configPath: string | null): Promise<AdapterFiles> {
  const tensors = await tensorsPath(path);
  const file = await open(tensors, 'r');
  try {
    const { size } = await file.stat();
    const header = await readHeader(file);
    requireExactLength(header, size);
    const beside = configPath ?? join(dirname(tensors), CONFIG);
    const isConfigInside = configPath === null && !(await exists(beside));
    const config = isConfigInside ? insideOf(header) : parseAdapterConfig(await readWhole(beside));
    return { path: tensors, file, header, bytes: size, config, isConfigInside };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function tensorsPath(path: string): Promise<string> {
  const found = await stat(path).catch(() => null);
  if (found === null) throw new CommandFailure(`there is no file or folder ${path}`);
  if (!found.isDirectory()) return requireSafetensors(path);
  const tensors = join(path, TENSORS);
  if (await exists(tensors)) return tensors;
  if (await exists(join(path, PICKLE))) return requireSafetensors(join(path, PICKLE));
  throw new CommandFailure(`${path} holds no ${TENSORS}`, {
    todo: 'Name the folder that save_pretrained wrote the adapter to: a checkpoint has it in a folder of its own.',
  });
}

function requireSafetensors(path: string): string {
  if (basename(path) !== PICKLE && !/\.(bin|pt|pth)$/.test(path)) return path;
  throw new CommandFailure(`${path} is a pickle, which may run code: only safetensors are taken`, {
    todo: 'Save it anew: model.save_pretrained(DIR, safe_serialization=True).',
  });
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null)) !== null;
}

async function readHeader(file: FileHandle): Promise<SafetensorsHeader> {
  const bytes = await readAt(file, 0, 8);
  return parseHeader(await readAt(file, 0, headerLength(bytes)));
}

export async function readAt(file: FileHandle, begin: number, end: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(end - begin);
  const { bytesRead } = await file.read(bytes, 0, bytes.length, begin);
  return bytes.subarray(0, bytesRead);
}

function insideOf({ metadata }: SafetensorsHeader): AdapterConfig | null {
  const inside = metadata.adapter_config;
  return inside === undefined ? null : parseAdapterConfig(Buffer.from(inside, 'utf8'));
}

async function readWhole(path: string): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const chunks: Buffer[] = [];
    await readBounded(file, CONFIG_BYTES_MAX, (chunk) => chunks.push(Buffer.from(chunk)));
    return Buffer.concat(chunks);
  } finally {
    await file.close();
  }
}
