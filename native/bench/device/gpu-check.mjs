/**
 * `npm run gpu-check`: builds all that a short stay on a machine with a GPU needs into build/gpu-check, nothing of which
 * needs a GPU to build, then runs it where there is one. Exits 77, and says how to go on, where there is none.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '../../..');
const CHECK = join(ROOT, 'build/gpu-check');
const RESULTS = join(ROOT, 'test/bench/results');
const NO_GPU = 77;

mkdirSync(CHECK, { recursive: true });
run(process.execPath, [join(ROOT, 'native/executor/cuda/build.mjs'), CHECK]);
build('native/executor/cuda', 'build/cuda-test', 'step_test', '-DLORIKEET_TESTS=ON');
build('native/bench/device', 'build/device-bench', 'device_bench');
copyFileSync(join(import.meta.dirname, 'run.sh'), join(CHECK, 'run.sh'));

const out = join(CHECK, 'out');
mkdirSync(out, { recursive: true });
const { status } = spawnSync('bash', [join(CHECK, 'run.sh')], {
  stdio: 'inherit',
  env: { ...process.env, OUT: out },
});
if (status === NO_GPU) {
  process.stdout.write(
    `Everything is in ${CHECK}. On a machine with a GPU: OUT=FOLDER bash run.sh there, about five minutes; ` +
      'then copy bench.json to test/bench/results/ under the name of the GPU.\n',
  );
} else if (status === 0) {
  const bench = readFileSync(join(out, 'bench.json'), 'utf8');
  const name = JSON.parse(bench)
    .device.toLowerCase()
    .replace(/[^a-z0-9]+/g, '-');
  const day = new Date().toISOString().slice(0, 10);
  writeFileSync(join(RESULTS, `device-${day}-${name}.json`), bench);
}
process.exitCode = status ?? 1;

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
