import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { withLock } from './files.mjs';
import { withProgress } from './run.mjs';

export function hasAll(folder, names) {
  return names.every((name) => existsSync(join(folder, name)));
}

/** Builds into a folder of another name and renames it: whoever looks sees all of it or nothing. */
export async function ensureBuilt(folder, names, label, about, build) {
  if (hasAll(folder, names)) return;
  await withLock(`${folder}.lock`, async () => {
    if (hasAll(folder, names)) return;
    mkdirSync(dirname(folder), { recursive: true });
    removeHalfBuilt(folder);
    const temporary = mkdtempSync(`${folder}.building-`);
    try {
      await withProgress(label, about, () => build(temporary));
      rmSync(folder, { recursive: true, force: true });
      renameSync(temporary, folder);
    } finally {
      rmSync(temporary, { recursive: true, force: true });
    }
  });
}

/** What a killed setup left behind; the caller holds the lock. */
function removeHalfBuilt(folder) {
  for (const name of readdirSync(dirname(folder))) {
    if (name.startsWith(`${basename(folder)}.building-`))
      rmSync(join(dirname(folder), name), { recursive: true, force: true });
  }
}
