/**
 * `npm run gpu-check`: builds all that two short stays on a machine with a GPU need into build/gpu-check, nothing of
 * which needs a GPU to build, then runs it where there is one. Exits 77, and says how to go on, where there is none.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '../../..');
const CHECK = join(ROOT, 'build/gpu-check');
const RESULTS = join(ROOT, 'test/bench/results');
const NO_GPU = 77;

mkdirSync(CHECK, { recursive: true });
run(process.execPath, [join(ROOT, 'native/executor/cuda/build.mjs'), CHECK]);
build('native/executor/cuda', 'build/cuda-test', 'step_test', '-DLORIKEET_TESTS=ON');
build('native/bench/device', 'build/device-bench', 'device_bench');
copyFileSync(join(ROOT, 'build/addon/lorikeet.node'), join(CHECK, 'lorikeet.node'));
packRuntime();

const out = join(CHECK, 'out');
mkdirSync(out, { recursive: true });
let status = 0;
for (const script of ['run.sh', 'engine.sh']) {
  copyFileSync(join(import.meta.dirname, script), join(CHECK, script));
  if (status === 0) status = stay(script);
}
if (status === NO_GPU) {
  process.stdout.write(
    `Everything is in ${relative(ROOT, CHECK)}. In a copy of this checkout on a machine with a GPU, about five minutes each: ` +
      `OUT=FOLDER bash ${relative(ROOT, CHECK)}/run.sh, and engine.sh beside it. Then copy bench.json, engine.json and ` +
      'serving.json to test/bench/results/ under the name of the GPU.\n',
  );
} else if (status === 0) {
  const name = JSON.parse(readFileSync(join(out, 'bench.json'), 'utf8'))
    .device.toLowerCase()
    .replace(/[^a-z0-9]+/g, '-');
  const day = new Date().toISOString().slice(0, 10);
  for (const what of ['bench', 'engine', 'serving']) {
    copyFileSync(join(out, `${what}.json`), join(RESULTS, `device-${what}-${day}-${name}.json`));
  }
}
process.exitCode = status;

function stay(script) {
  const ended = spawnSync('bash', [join(CHECK, script)], {
    stdio: 'inherit',
    env: { ...process.env, OUT: out },
  });
  return ended.status ?? 1;
}

/** Node, and the packages that a server needs, for a machine that has neither. */
function packRuntime() {
  const runtime = join(CHECK, 'runtime');
  const modules = join(runtime, 'node_modules');
  rmSync(runtime, { recursive: true, force: true });
  const listed = spawnSync('npm', ['ls', '--omit=dev', '--all', '--parseable'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  for (const path of listed.stdout.split('\n').filter((line) => line.includes('node_modules'))) {
    cpSync(path, join(runtime, relative(ROOT, path)), { recursive: true });
  }
  mkdirSync(join(modules, '.bin'));
  run('strip', ['-o', join(modules, '.bin/node'), join(ROOT, 'node_modules/node/bin/node')]);
  const archive = join(CHECK, 'runtime.tar.xz');
  run('tar', ['-c', '-I', 'xz -T0 -6', '-f', archive, '-C', runtime, 'node_modules']);
  rmSync(runtime, { recursive: true });
}

function build(source, folder, target, ...options) {
  const type = '-DCMAKE_BUILD_TYPE=Release';
  run('cmake', ['-S', join(ROOT, source), '-B', join(ROOT, folder), type, ...options]);
  run('cmake', ['--build', join(ROOT, folder), '--target', target, '--parallel']);
  copyFileSync(join(ROOT, folder, target), join(CHECK, target));
}

function run(command, args) {
  const ended = spawnSync(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  if (ended.status !== 0) process.exit(ended.status ?? 1);
}
