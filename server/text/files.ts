import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** A JSON object whose values are not checked yet. */
export type Json = Record<string, unknown>;

/** A file of a model's folder that cannot be used as it is. */
export class TextFileError extends Error {
  readonly code: 'missing_file' | 'malformed_file';

  constructor(code: TextFileError['code'], message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'TextFileError';
    this.code = code;
  }
}

export function missingFile(dir: string, name: string): TextFileError {
  return new TextFileError('missing_file', `Expected ${name} in ${dir} but there is none`);
}

/** Without the byte order mark that editors on Windows put in front. */
export async function readTextIfThere(dir: string, name: string): Promise<string | null> {
  try {
    return (await readFile(join(dir, name), 'utf8')).replace(/^\uFEFF/, '');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

export async function readJsonIfThere(dir: string, name: string): Promise<Json | null> {
  const text = await readTextIfThere(dir, name);
  if (text === null) return null;
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TextFileError(
      'malformed_file',
      `Expected JSON in ${name} of ${dir} but received: ${reason}`,
      cause,
    );
  }
  throw new TextFileError(
    'malformed_file',
    `Expected a JSON object in ${name} of ${dir} but received another value`,
  );
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
