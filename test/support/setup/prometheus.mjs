import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { ensureBuilt, hasAll } from './built.mjs';
import { cacheDir } from './files.mjs';
import { run, say, tryRun } from './run.mjs';
import { isOnPath } from './toolchain.mjs';

const COMMANDS = ['prometheus', 'promtool'];

/** Folder of prometheus and promtool: of PATH, else of the package unpacked here; null where there is none. */
export function findPrometheus() {
  const folders = [...(process.env.PATH ?? '').split(delimiter), join(unpacked(), 'usr/bin')];
  return folders.find((folder) => folder !== '' && hasAll(folder, COMMANDS)) ?? null;
}

/**
 * Debian's package, unpacked and not installed: installed it would start a daemon, and need root. Without one the tests
 * of alerts are skipped, with the reason said here.
 */
export async function ensurePrometheus() {
  if (findPrometheus() !== null) return;
  try {
    if (!isOnPath('apt-get')) throw new Error('this is no Debian, and no prometheus is on PATH');
    await ensureBuilt(unpacked(), ['usr/bin'], "unpacking Debian's package prometheus", '10 s', unpack);
  } catch (error) {
    say(`no Prometheus, its tests will be skipped: ${error.message}`);
  }
}

async function unpack(folder) {
  const download = ['apt-get', ['download', 'prometheus'], { cwd: folder }];
  if ((await tryRun(...download)) === null) {
    if (process.getuid?.() === 0) await run('apt-get', ['update']);
    await run(...download);
  }
  const file = (await run('ls', [folder])).trim();
  await run('dpkg-deb', ['-x', join(folder, file), folder]);
  await run('rm', [join(folder, file)]);
  if (!existsSync(join(folder, 'usr/bin/promtool'))) throw new Error(`${file} has no promtool`);
}

function unpacked() {
  return join(cacheDir(), 'tools', `prometheus-${process.arch}`);
}
