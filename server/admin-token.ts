import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, type Stats, writeFileSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ConfigError } from './contract/flags.ts';

/** What a bearer token may consist of (RFC 6750, b64token). */
const TOKEN_PATTERN = /^[A-Za-z0-9._~+/-]+=*$/;
/** Shorter ones can be guessed. */
const CHARACTERS_MIN = 16;

export interface AdminToken {
  path: string;
  made: boolean;
  /** Why a stranger may come to know it, and how to mend that. */
  doubts: string[];
  current(): Promise<string>;
}

/** The token of `file`, or one made for the life of this process. */
export async function adminToken(file: string | null): Promise<AdminToken> {
  return file === null ? madeToken() : await FileToken.read(file);
}

/** In a folder that only this user can enter and that goes when the process exits. */
function madeToken(): AdminToken {
  // Without a pause in which a signal could end the process and leave something behind.
  const folder = mkdtempSync(join(process.env.XDG_RUNTIME_DIR ?? tmpdir(), 'lorikeet-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'admin-token');
  const value = randomBytes(32).toString('base64url');
  writeFileSync(path, `${value}\n`, { mode: 0o600 });
  return { path, made: true, doubts: [], current: async () => value };
}

/** Read again when the file changes: Kubernetes replaces a Secret's files in place. One that is no token is passed over. */
class FileToken implements AdminToken {
  readonly path: string;
  readonly made = false;
  readonly doubts: string[];
  #value: string;
  #stamp: string;

  static async read(path: string): Promise<FileToken> {
    const { stats, value } = await readToken(path);
    return new FileToken(path, value, stats);
  }

  private constructor(path: string, value: string, stats: Stats) {
    this.path = path;
    this.#value = value;
    this.#stamp = stampOf(stats);
    this.doubts = doubtsOf(path, value, stats);
  }

  async current(): Promise<string> {
    const stats = await stat(this.path).catch(() => null);
    if (stats === null || stampOf(stats) === this.#stamp) return this.#value;
    const read = await readToken(this.path).catch(() => null);
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

async function readToken(file: string): Promise<{ value: string; stats: Stats }> {
  try {
    // Before the text: what is written in between has another stamp.
    const stats = await stat(file);
    const value = (await readFile(file, 'utf8')).trim();
    if (TOKEN_PATTERN.test(value)) return { value, stats };
    throw new ConfigError(
      `Expected letters, digits and ._~+/-= in --admin-token-file ${file}, as bearer tokens are made of, but found ${value === '' ? 'an empty file' : 'other characters'}`,
    );
  } catch (cause) {
    if (cause instanceof ConfigError) throw cause;
    throw new ConfigError(
      `--admin-token-file ${file} cannot be read: ${(cause as NodeJS.ErrnoException).code}`,
      { cause },
    );
  }
}
