import { readFile, stat } from 'node:fs/promises';
import { buildConnector } from 'undici';
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

/** For an undici Agent: new connections trust what the file holds then. */
export function connectorOf(ca: CaFile, timeoutMs: number): buildConnector.connector {
  // A session that goes on would not ask anew who is there.
  const fixed = { timeout: timeoutMs, allowH2: false, maxCachedSessions: 0 };
  return (options, callback) => {
    ca.current().then(
      (pem) => buildConnector({ ...fixed, ca: pem })(options, callback),
      (error: Error) => callback(error, null),
    );
  };
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
