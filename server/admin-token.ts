import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { hostsOfToken, type ServerConfig } from './config.ts';
import { ConfigError } from './contract/flags.ts';
import { isLoopback } from './transfer/loopback.ts';
import { TokenFile } from './transfer/token-file.ts';

export interface AdminToken {
  path: string;
  made: boolean;
  /** Why a stranger may come to know it, and how to mend that. */
  doubts: string[];
  current(): Promise<string>;
}

/** The token of `file`, or one made for the life of this process. */
export async function adminToken(file: string | null): Promise<AdminToken> {
  if (file === null) return madeToken();
  const token = await TokenFile.read(file, 'admin-token-file');
  return { path: file, made: false, doubts: token.doubts, current: () => token.current() };
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

/** As ssh does with keys: where strangers could use it, a token that they may come to know is not used. */
export async function trustedToken(config: ServerConfig, log: Logger): Promise<AdminToken> {
  const token = await adminToken(config.adminTokenFile);
  const [doubt] = token.doubts;
  if (doubt !== undefined && hostsOfToken(config).some(({ host }) => !isLoopback(host)))
    throw new ConfigError(`--admin-token-file ${doubt}`);
  for (const text of token.doubts) log.warn({ adminTokenFile: token.path }, text);
  return token;
}
