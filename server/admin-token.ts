import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
