import type { Stats } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { ConfigError } from '../contract/flags.ts';

/** What a bearer token may consist of (RFC 6750, b64token). */
const TOKEN_PATTERN = /^[A-Za-z0-9._~+/-]+=*$/;
/** Shorter ones can be guessed. */
const CHARACTERS_MIN = 16;

/** Read again when the file changes: Kubernetes replaces a Secret's files in place. One that is no token is passed over. */
export class TokenFile {
  readonly path: string;
  /** Why a stranger may come to know it, and how to mend that. */
  readonly doubts: string[];
  readonly #flag: string;
  #value: string;
  #stamp: string;

  /** Throws ConfigError in the words of the flag that names the file. */
  static async read(path: string, flag: string): Promise<TokenFile> {
    const { stats, value } = await readToken(path, flag);
    return new TokenFile({ path, flag }, value, stats);
  }

  private constructor({ path, flag }: { path: string; flag: string }, value: string, stats: Stats) {
    this.path = path;
    this.#flag = flag;
    this.#value = value;
    this.#stamp = stampOf(stats);
    this.doubts = doubtsOf(path, value, stats);
  }

  async current(): Promise<string> {
    const stats = await stat(this.path).catch(() => null);
    if (stats === null || stampOf(stats) === this.#stamp) return this.#value;
    const read = await readToken(this.path, this.#flag).catch(() => null);
    this.#stamp = stampOf(read?.stats ?? stats);
    if (read !== null) this.#value = read.value;
    return this.#value;
  }
}

function stampOf({ ino, ctimeMs, size }: Stats): string {
  return `${ino} ${ctimeMs} ${size}`;
}

function doubtsOf(path: string, value: string, { mode }: Stats): string[] {
  const doubts: string[] = [];
  const octal = (mode & 0o777).toString(8).padStart(4, '0');
  if ((mode & 0o026) !== 0) {
    doubts.push(
      `${path} has mode ${octal}: others may read or change it. chmod 0440 it, or give the Secret's volume defaultMode: 0440`,
    );
  }
  if (value.length < CHARACTERS_MIN) {
    doubts.push(
      `${path} holds ${value.length} characters: expected at least ${CHARACTERS_MIN}, as of openssl rand -hex 32`,
    );
  }
  return doubts;
}

async function readToken(file: string, flag: string): Promise<{ value: string; stats: Stats }> {
  try {
    // Before the text: what is written in between has another stamp.
    const stats = await stat(file);
    const value = (await readFile(file, 'utf8')).trim();
    if (TOKEN_PATTERN.test(value)) return { value, stats };
    throw new ConfigError(
      `Expected letters, digits and ._~+/-= in --${flag} ${file}, as bearer tokens are made of, but found ${value === '' ? 'an empty file' : 'other characters'}`,
    );
  } catch (cause) {
    if (cause instanceof ConfigError) throw cause;
    throw new ConfigError(`--${flag} ${file} cannot be read: ${(cause as NodeJS.ErrnoException).code}`, {
      cause,
    });
  }
}
