import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** A file that a model's folder must have, and has not. */
export class MissingFile extends Error {
  constructor(dir: string, name: string) {
    super(`Expected ${name} in ${dir} but there is none`);
    this.name = 'MissingFile';
  }
}

export async function readTextIfThere(dir: string, name: string): Promise<string | null> {
  try {
    return await readFile(join(dir, name), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
