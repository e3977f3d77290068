import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ConfigError } from './contract/flags.ts';

/** What a bearer token may consist of (RFC 6750, b64token). */
const TOKEN_PATTERN = /^[A-Za-z0-9._~+/-]+=*$/;

export interface AdminToken {
  value: string;
  path: string;
  made: boolean;
}

/**
 * The token of `file`, or one made for the life of this process, in a folder that only this user can enter and that
 * goes when the process exits.
 */
export async function adminToken(file: string | null): Promise<AdminToken> {
  if (file !== null) {
    const value = (await readToken(file)).trim();
    if (!TOKEN_PATTERN.test(value)) {
      throw new ConfigError(
        `Expected letters, digits and ._~+/-= in --admin-token-file ${file}, as bearer tokens are made of, but found ${value === '' ? 'an empty file' : 'other characters'}`,
      );
    }
    return { value, path: file, made: false };
  }
  // Without a pause in which a signal could end the process and leave something behind.
  const folder = mkdtempSync(join(process.env.XDG_RUNTIME_DIR ?? tmpdir(), 'lorikeet-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'admin-token');
  const value = randomBytes(32).toString('base64url');
  writeFileSync(path, `${value}\n`, { mode: 0o600 });
  return { value, path, made: true };
}

async function readToken(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw new ConfigError(
      `--admin-token-file ${file} cannot be read: ${(cause as NodeJS.ErrnoException).code}`,
      { cause },
    );
  }
}
