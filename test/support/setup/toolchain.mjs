import { existsSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';
import { cacheDir, withLock } from './files.mjs';
import { run, SetupError, tryRun, withProgress } from './run.mjs';

/** Also of an absolute path. */
export function isOnPath(command) {
  if (isAbsolute(command)) return existsSync(command);
  return (process.env.PATH ?? '').split(delimiter).some((folder) => existsSync(join(folder, command)));
}

/** What compiles the addon. */
export async function ensureCompiler() {
  await ensurePackages(missingPackages(), 'the addon needs a C++20 compiler, cmake and ninja or make');
}

/** What the demo pushes with. */
export async function ensureCurl() {
  await ensurePackages(isOnPath('curl') ? [] : ['curl'], 'the demo needs curl');
}

/** What brings packages of PyPI. */
export async function ensurePip(need) {
  const version = await tryRun('python3', ['-m', 'pip', '--version']);
  await ensurePackages(version === null ? ['python3-pip'] : [], need);
}

/** As root on Debian the missing packages are installed, elsewhere they are named. */
export async function ensurePackages(missing, need) {
  if (missing.length === 0) return;
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  if (process.getuid?.() !== 0 || !isOnPath('apt-get')) {
    throw new SetupError(`${need}. On Debian: sudo ${command}`);
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  await withLock(join(cacheDir(), 'apt-get.lock'), () =>
    withProgress(command, '1 min', async () => {
      await run('apt-get', ['update'], { env });
      await run('apt-get', command.split(' ').slice(1), { env });
    }),
  );
}

function missingPackages() {
  const missing = [];
  if (!isOnPath('cmake')) missing.push('cmake');
  if (!isOnPath('ninja') && !isOnPath('make')) missing.push('ninja-build');
  if (!['c++', 'g++', 'clang++'].some(isOnPath) && !process.env.CXX) missing.push('g++');
  return missing;
}
