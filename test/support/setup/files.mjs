import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { say } from './run.mjs';

export const ROOT = fileURLToPath(new URL('../../..', import.meta.url)).replace(/\/$/, '');

const LOCK_POLL_MS = 250;
const REMINDER_MS = 3_000;

/** Outside the tree, so that a clean clone does not build a control plane again. */
export function cacheDir() {
  if (process.env.LORIKEET_CACHE) return process.env.LORIKEET_CACHE;
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'lorikeet');
}

/** A short name for exactly these contents. */
export function keyOf(...parts) {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part).update('\0');
  return hash.digest('hex').slice(0, 16);
}

/** Names and contents of every file under a folder that `wanted` accepts, in a fixed order. */
export function contentsUnder(folder, wanted) {
  const parts = [];
  for (const entry of readdirSync(folder, { withFileTypes: true }).sort((a, b) =>
    a.name < b.name ? -1 : 1,
  )) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) parts.push(...contentsUnder(path, wanted));
    else if (wanted(entry.name)) parts.push(path.slice(ROOT.length), readFileSync(path));
  }
  return parts;
}

/** One setup at a time per lock file; the lock of a process that is gone is taken over. */
export async function withLock(path, work) {
  mkdirSync(dirname(path), { recursive: true });
  await takeLock(path);
  const release = () => rmSync(path, { force: true });
  process.once('exit', release);
  try {
    return await work();
  } finally {
    process.off('exit', release);
    release();
  }
}

async function takeLock(path) {
  for (let saidAt = 0; ; ) {
    try {
      writeFileSync(path, String(process.pid), { flag: 'wx' });
      return;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    const owner = lockOwner(path);
    if (owner !== null && !isAlive(owner)) {
      rmSync(path, { force: true });
      continue;
    }
    if (Date.now() - saidAt >= REMINDER_MS) {
      say(`waiting for another setup (process ${owner ?? 'unknown'}, lock ${path})`);
      saidAt = Date.now();
    }
    await new Promise((resolve) => setTimeout(resolve, LOCK_POLL_MS));
  }
}

function lockOwner(path) {
  if (!existsSync(path)) return null;
  const owner = Number.parseInt(readFileSync(path, 'utf8'), 10);
  return Number.isInteger(owner) ? owner : null;
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}
