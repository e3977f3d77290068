import { readFile, stat } from 'node:fs/promises';
import { ConfigError } from '../contract/flags.ts';
import { requireCertificates } from './tls-files.ts';

/** Whom a client trusts, read again when the file changes; what cannot be used is passed over. */
export class CaFile {
  readonly #path: string;
  #pem: string;
  #stamp: string;

  /** Throws ConfigError where it cannot be used. */
  static async read(path: string): Promise<CaFile> {
    try {
      const stamp = await stampOf(path);
      return new CaFile(path, await readPem(path), stamp);
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      throw new ConfigError(code === undefined ? message : `${path} cannot be read: ${code}`, { cause });
    }
  }

  private constructor(path: string, pem: string, stamp: string) {
    this.#path = path;
    this.#pem = pem;
    this.#stamp = stamp;
  }

  async current(): Promise<string> {
    const stamp = await stampOf(this.#path).catch(() => this.#stamp);
    if (stamp === this.#stamp) return this.#pem;
    this.#stamp = stamp;
    this.#pem = await readPem(this.#path).catch(() => this.#pem);
    return this.#pem;
  }
}

async function readPem(path: string): Promise<string> {
  const pem = await readFile(path, 'utf8');
  requireCertificates(pem, path);
  return pem;
}

async function stampOf(path: string): Promise<string> {
  const { ino, ctimeMs, size } = await stat(path);
  return `${ino} ${ctimeMs} ${size}`;
}
