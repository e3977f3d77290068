import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Dtype, FileTensor } from '../../native/types.ts';
import { LorikeetError } from '../contract/errors.ts';
import {
  headerLength,
  parseHeader,
  requireExactLength,
  type SafetensorsHeader,
} from '../contract/format/safetensors.ts';
import { parseStrictJson, StrictJsonError, withoutByteOrderMark } from '../contract/strict-json.ts';
import { ModelError, malformed, unsupported } from './errors.ts';
import { type Keys, optionalKeys } from './keys.ts';

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const SHARDS_MAX = 1024;
const JSON_BYTES_MAX = 16 << 20;
const DTYPES: readonly string[] = ['F32', 'F16', 'BF16'] satisfies Dtype[];

export interface Shards {
  /** File names in the model directory, ascending. */
  names: string[];
  /** Absolute paths, in the order of `names`. */
  files: string[];
  tensors: Map<string, FileTensor>;
}

/** Reads the headers of all safetensors files of a model directory, and checks each against the file's length. */
export async function openShards(dir: string): Promise<Shards> {
  const single = await stat(join(dir, SINGLE)).catch(() => null);
  // As transformers does: one whole file wins over an index.
  const index = single === null ? await readJsonFile(dir, INDEX) : null;
  const weightMap = index === null ? null : readWeightMap(index);
  const names = weightMap === null ? [SINGLE] : [...new Set(weightMap.values())].sort();
  const files = names.map((name) => resolve(dir, name));
  const tensors = new Map<string, FileTensor>();
  for (const [file, path] of files.entries()) {
    for (const tensor of (await readShardHeader(path)).tensors) {
      if (tensors.has(tensor.name)) throw malformed(tensor.name, 'a tensor in one shard', 'the same in two');
      if (!DTYPES.includes(tensor.dtype)) throw unsupported(tensor.name, DTYPES, tensor.dtype);
      const { shape, begin, end } = tensor;
      const dtype = tensor.dtype as Dtype;
      tensors.set(tensor.name, { file, offset: begin, bytes: end - begin, dtype, shape });
    }
  }
  for (const [tensor, name] of weightMap ?? []) {
    const file = tensors.get(tensor)?.file;
    if (file === undefined || names[file] !== name) {
      throw malformed(tensor, `in ${name}, as the index says`, file === undefined ? 'nowhere' : names[file]);
    }
  }
  return { names, files, tensors };
}

/** A JSON file of the directory as an object, or null where it does not exist. */
export async function readJsonFile(dir: string, name: string): Promise<Keys | null> {
  const bytes = await readFileOrNull(join(dir, name));
  if (bytes === null) return null;
  try {
    const value = parseStrictJson(withoutByteOrderMark(bytes), { depth: 16 });
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Keys;
  } catch (cause) {
    if (!(cause instanceof StrictJsonError)) throw cause;
    throw new ModelError('malformed_model', name, { expected: 'strict JSON', actual: cause.message, cause });
  }
  throw malformed(name, 'a JSON object', 'another value');
}

/**
 * Identity of a base model: `sha256:` of "base-v1\n" and, for config.json and then every safetensors file in the
 * order of their names, `<sha256hex of its bytes>\n`. File names are not part of it, the split into shards is.
 */
export async function baseDigest(dir: string, shards: Pick<Shards, 'files'>): Promise<string> {
  const identity = createHash('sha256').update('base-v1\n');
  for (const path of [join(dir, 'config.json'), ...shards.files]) {
    const file = createHash('sha256');
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }))
      file.update(chunk as Buffer);
    identity.update(`${file.digest('hex')}\n`);
  }
  return `sha256:${identity.digest('hex')}`;
}

async function readFileOrNull(path: string): Promise<Buffer | null> {
  try {
    const { size } = await stat(path);
    if (size > JSON_BYTES_MAX) throw malformed(path, `at most ${JSON_BYTES_MAX} bytes`, size);
    return await readFile(path);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }
}

function readWeightMap(index: Keys): Map<string, string> {
  const entries = Object.entries(optionalKeys(index, 'weight_map') ?? {});
  // A shard's name is a plain name in the directory, never a path out of it.
  const wrong = entries.find(
    ([, name]) => typeof name !== 'string' || !/^[\w-][\w.-]*\.safetensors$/.test(name),
  );
  if (wrong !== undefined)
    throw malformed(`${INDEX} ${wrong[0]}`, 'the name of a safetensors file', wrong[1]);
  const map = new Map(entries as [string, string][]);
  const shards = new Set(map.values()).size;
  if (shards < 1 || shards > SHARDS_MAX) throw malformed(INDEX, `1 to ${SHARDS_MAX} shards`, shards);
  return map;
}

async function readShardHeader(path: string): Promise<SafetensorsHeader> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path, 'r');
  } catch (cause) {
    throw new ModelError('missing_file', path, { expected: 'a readable file', actual: 'none', cause });
  }
  try {
    const prefix = await file.read(Buffer.alloc(8), 0, 8, 0);
    const length = headerLength(prefix.buffer.subarray(0, prefix.bytesRead));
    const whole = await file.read(Buffer.alloc(length), 0, length, 0);
    const header = parseHeader(whole.buffer.subarray(0, whole.bytesRead));
    requireExactLength(header, (await file.stat()).size);
    return header;
  } catch (cause) {
    if (!(cause instanceof LorikeetError)) throw cause;
    throw new ModelError('malformed_model', path, {
      expected: 'a safetensors file',
      actual: cause.message,
      cause,
    });
  } finally {
    await file.close();
  }
}
