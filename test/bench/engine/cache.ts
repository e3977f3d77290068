import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

/** What takes long to make and outlives a clone: the models, llama.cpp, the built floors. */
export function benchCache(): string {
  const { LORIKEET_CACHE, XDG_CACHE_HOME } = process.env;
  return join(LORIKEET_CACHE || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'lorikeet'), 'bench');
}

/** Makes a file or folder under another name, so that the right name only ever holds a whole one. */
export async function makeOnce(path: string, make: (partial: string) => Promise<void>): Promise<string> {
  if (existsSync(path)) return path;
  const partial = `${path}.partial-${process.pid}`;
  await mkdir(dirname(path), { recursive: true });
  try {
    await make(partial);
    await rename(partial, path);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
  return path;
}

/** Progress; stdout belongs to the report. */
export function say(line: string): void {
  process.stderr.write(`bench: ${line}\n`);
}
