import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT, withLock } from './files.mjs';
import { run, SetupError, tryRun, withProgress } from './run.mjs';

const NODE_MAJOR = 'v24.';

/** Installs the packages of package-lock.json unless node_modules holds exactly those. */
export async function ensureNodeModules() {
  if (await isInstalled()) return;
  await withLock(join(ROOT, 'build/npm.lock'), async () => {
    if (await isInstalled()) return;
    await withProgress('installing the packages of package-lock.json', '1 min', () =>
      run('npm', ['ci', '--no-audit', '--no-fund'], { cwd: ROOT }),
    );
  });
  if (!(await isInstalled())) {
    throw new SetupError(
      `node_modules/.bin/node is not a Node ${NODE_MAJOR}x that runs: remove node_modules and try again`,
    );
  }
}

async function isInstalled() {
  if (!matchesLock()) return false;
  const version = await tryRun(join(ROOT, 'node_modules/.bin/node'), ['--version']);
  return version?.startsWith(NODE_MAJOR) ?? false;
}

/** npm writes what it installed to node_modules/.package-lock.json; optional packages of other platforms are not there. */
function matchesLock() {
  const installedPath = join(ROOT, 'node_modules/.package-lock.json');
  if (!existsSync(installedPath)) return false;
  const wanted = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).packages;
  const installed = JSON.parse(readFileSync(installedPath, 'utf8')).packages;
  if (Object.keys(installed).some((path) => wanted[path] === undefined)) return false;
  return Object.entries(wanted).every(([path, { version, integrity, optional }]) => {
    if (path === '') return true;
    const found = installed[path];
    if (found === undefined) return optional === true;
    return found.version === version && found.integrity === integrity;
  });
}
