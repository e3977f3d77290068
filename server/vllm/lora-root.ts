import { constants } from 'node:fs';
import { type FileHandle, lstat, open, readlink, realpath } from 'node:fs/promises';
import { isAbsolute, join, relative, resolve } from 'node:path';
import { quoted } from '../contract/strict-json.ts';
import { OpenAiError } from '../openai/errors.ts';
import type { OpenFile } from '../transfer/adapter-folder.ts';

const PATH_CHARACTERS_MAX = 4096;
/** What torch.save writes: reading it runs whatever code is in it. */
const PICKLE = /\.(?:bin|pt|pth|ckpt|pkl)$/i;
/** A pipe without a writer must not hold the open up, and the last name must be no link. */
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;

/** The one folder whose adapters callers may name by their paths. */
export class LoraRoot {
  readonly #given: string;
  /** Without links. */
  readonly #real: string;

  static async at(dir: string): Promise<LoraRoot> {
    return new LoraRoot(resolve(dir), await realpath(dir));
  }

  private constructor(given: string, real: string) {
    this.#given = given;
    this.#real = real;
  }

  /** The files of one adapter. Of a path outside nothing is looked up, so that no answer says what is there. */
  filesOf(loraPath: string): OpenFile {
    if (PICKLE.test(loraPath)) throw notSafetensors(loraPath);
    const dir = resolve(this.#real, loraPath);
    const isInside = isBelow(this.#given, dir) || isBelow(this.#real, dir);
    if (!isInside || loraPath.includes('\0') || loraPath.length > PATH_CHARACTERS_MAX)
      throw outside(loraPath);
    return (name) => this.#open(dir, name, loraPath);
  }

  async #open(dir: string, name: string, loraPath: string): Promise<FileHandle> {
    const real = await realpath(join(dir, name)).catch((error) => missing(error, join(dir, name)));
    if (real === null) throw await this.#absent(dir, loraPath);
    if (!isBelow(this.#real, real)) throw outside(loraPath);
    const file = await open(real, OPEN_FLAGS).catch((error) => missing(error, real));
    if (file === null) throw notFound(loraPath);
    try {
      // A folder above may have become a link since.
      const opened = await readlink(`/proc/self/fd/${file.fd}`);
      if (!isBelow(this.#real, opened) || !(await file.stat()).isFile()) throw outside(loraPath);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Where there is no safetensors file there may be one of the other kind. */
  async #absent(dir: string, loraPath: string): Promise<OpenAiError> {
    const pickle = join(dir, 'adapter_model.bin');
    const real = await realpath(dir).catch((error) => missing(error, dir));
    if (real === null) return notFound(loraPath);
    if (!isBelow(this.#real, real)) return outside(loraPath);
    const found = await lstat(pickle).catch((error) => missing(error, pickle));
    return found === null ? notFound(loraPath) : notSafetensors(pickle);
  }
}

function isBelow(root: string, path: string): boolean {
  const rest = relative(root, path);
  return rest !== '..' && !rest.startsWith('../') && !isAbsolute(rest);
}

/** Null where nothing is there that could be opened. */
function missing(error: unknown, path: string): null {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP' || code === 'ENAMETOOLONG') return null;
  if (code === 'EACCES' || code === 'EPERM') throw unreadable(path);
  throw error;
}

function notFound(loraPath: string): OpenAiError {
  return new OpenAiError('adapter_not_found', `No adapter found for ${quoted(loraPath)}`, 'lora_path');
}

function outside(loraPath: string): OpenAiError {
  return new OpenAiError(
    'invalid_user_input',
    `Expected a folder of files below --lora-root for lora_path but received ${quoted(loraPath)}`,
    'lora_path',
  );
}

function notSafetensors(path: string): OpenAiError {
  return new OpenAiError(
    'invalid_user_input',
    `Expected adapter_model.safetensors but found ${quoted(path)}: pickled tensors are not read`,
    'lora_path',
  );
}

function unreadable(path: string): OpenAiError {
  return new OpenAiError('invalid_user_input', `The server may not read ${quoted(path)}`, 'lora_path');
}
