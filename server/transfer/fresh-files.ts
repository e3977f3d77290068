import { stat } from 'node:fs/promises';
import { ConfigError } from '../contract/flags.ts';

/** What files hold, read again when one of them changes; what cannot be used is passed over. */
export class FreshFiles<T> {
  readonly #paths: readonly string[];
  readonly #read: () => Promise<T>;
  #value: T;
  #stamp: string;

  /** Throws ConfigError where they cannot be used. */
  static async open<T>(paths: readonly string[], read: () => Promise<T>): Promise<FreshFiles<T>> {
    try {
      const stamp = await stampOf(paths);
      return new FreshFiles({ paths, read }, await read(), stamp);
    } catch (cause) {
      const { code, path, message } = cause as NodeJS.ErrnoException;
      const isOfFile = code !== undefined && path !== undefined;
      throw new ConfigError(isOfFile ? `${path} cannot be read: ${code}` : message, { cause });
    }
  }

  private constructor(
    { paths, read }: { paths: readonly string[]; read: () => Promise<T> },
    value: T,
    stamp: string,
  ) {
    this.#paths = paths;
    this.#read = read;
    this.#value = value;
    this.#stamp = stamp;
  }

  async current(): Promise<T> {
    const stamp = await stampOf(this.#paths).catch(() => this.#stamp);
    if (stamp === this.#stamp) return this.#value;
    this.#stamp = stamp;
    this.#value = await this.#read().catch(() => this.#value);
    return this.#value;
  }
}

async function stampOf(paths: readonly string[]): Promise<string> {
  const stats = await Promise.all(paths.map((path) => stat(path)));
  return stats.map(({ ino, ctimeMs, size }) => `${ino} ${ctimeMs} ${size}`).join(', ');
}
