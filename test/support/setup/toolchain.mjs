import { existsSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';
import { ROOT } from './files.mjs';
import { run, SetupError, tryRun, withProgress } from './run.mjs';

const GO_MINOR_MIN = 26;
export const ASSETS_SOURCE = join(ROOT, 'test/cluster/assets');

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

/** As root on Debian the missing packages are installed, elsewhere they are named. */
export async function ensurePackages(missing, need) {
  if (missing.length === 0) return;
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  if (process.getuid?.() !== 0 || !isOnPath('apt-get')) {
    throw new SetupError(`${need}. On Debian: sudo ${command}`);
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  await withProgress(command, '1 min', async () => {
    await run('apt-get', ['update'], { env });
    await run('apt-get', command.split(' ').slice(1), { env });
  });
}

function missingPackages() {
  const missing = [];
  if (!isOnPath('cmake')) missing.push('cmake');
  if (!isOnPath('ninja') && !isOnPath('make')) missing.push('ninja-build');
  if (!['c++', 'g++', 'clang++'].some(isOnPath) && !process.env.CXX) missing.push('g++');
  return missing;
}

/**
 * Where `go` is and which version builds our module (go.mod may make Go fetch a newer toolchain of itself).
 * @returns {Promise<{go: string, version: string}>}
 */
export async function findGo() {
  for (const go of ['go', '/usr/local/go/bin/go']) {
    const version = (await tryRun(go, ['env', 'GOVERSION'], { cwd: ASSETS_SOURCE }))?.trim();
    const minor = Number(version?.match(/^go1\.(\d+)/)?.[1]);
    if (minor >= GO_MINOR_MIN) return { go, version };
  }
  throw new SetupError(
    `the test control plane needs Go 1.${GO_MINOR_MIN} or newer on PATH or in /usr/local/go (https://go.dev/doc/install), ` +
      'or a folder with etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl named by KUBEBUILDER_ASSETS',
  );
}
