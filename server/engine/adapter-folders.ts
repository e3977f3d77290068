import { constants } from 'node:fs';
import { access, mkdir, readdir, rename, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Content } from './port.ts';

/** Of Linux: file systems whose files lie in memory. */
const MEMORY_FILE_SYSTEMS = [0x01021994, 0x858458f6];
const NAME_PATTERN = /^[0-9a-f]{64}(\.new)?$/;

/**
 * PEFT folders that this server and an engine in the same pod both see, in a file system that lies in memory: one for
 * each revision that the engine holds.
 */
export class AdapterFolders {
  readonly dir: string;
  readonly #seenAs: string;

  /** `seenAs` is the same folder's path in the engine's container. */
  private constructor(dir: string, seenAs: string) {
    this.dir = dir;
    this.#seenAs = seenAs;
  }

  /** Empties it: what lies there is of a process that has ended. */
  static async open(dir: string, seenAs: string, log: Logger): Promise<AdapterFolders> {
    await mkdir(dir, { recursive: true });
    await access(dir, constants.W_OK);
    const { type } = await statfs(dir);
    if (!MEMORY_FILE_SYSTEMS.includes(type))
      log.warn({ dir }, 'adapters would be written to a disk: expected a file system in memory, as tmpfs');
    for (const name of await readdir(dir))
      if (NAME_PATTERN.test(name)) await rm(join(dir, name), { recursive: true, force: true });
    return new AdapterFolders(dir, seenAs);
  }

  /** All of it or nothing. */
  async write(name: string, { config, body }: Pick<Content, 'config' | 'body'>): Promise<void> {
    const folder = join(this.dir, name);
    const half = `${folder}.new`;
    await rm(half, { recursive: true, force: true });
    try {
      await mkdir(half);
      await writeFile(join(half, 'adapter_config.json'), config);
      await writeFile(join(half, 'adapter_model.safetensors'), body);
      await rm(folder, { recursive: true, force: true });
      await rename(half, folder);
    } catch (error) {
      await rm(half, { recursive: true, force: true });
      throw error;
    }
  }

  /** What the engine is to be told. */
  pathOf(name: string): string {
    return join(this.#seenAs, name);
  }

  remove(name: string): Promise<void> {
    return rm(join(this.dir, name), { recursive: true, force: true });
  }
}
