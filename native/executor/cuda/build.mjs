/**
 * Builds liblorikeet_cuda.so beside the addon: `node native/executor/cuda/build.mjs [FOLDER]`. CUDA's compiler comes from
 * PyPI wheels (270 MB), unless NVCC names one; neither a GPU nor a driver is needed. Fails where a kernel spills registers,
 * where ptxas warns that an instruction is not what was asked for, and where the library grows too large.
 * Plain JavaScript without dependencies, for images without Node packages.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '../../..');
const SOURCE = join(ROOT, 'native/executor/cuda');
const CUDA = '13.0.88';
const WHEELS = [
  `nvidia-cuda-nvcc==${CUDA}`,
  'nvidia-cuda-runtime==13.0.96',
  'nvidia-cuda-cccl==13.0.85',
  `nvidia-cuda-crt==${CUDA}`,
  `nvidia-nvvm==${CUDA}`,
];
/** A100, H100 and H200, B200. */
const ARCHITECTURES = ['80', '90a', '100'];
const LIBRARY_BYTES_MAX = 8 << 20;

main(resolve(process.argv[2] ?? join(ROOT, 'build/addon')));

function main(folder) {
  const library = join(folder, 'liblorikeet_cuda.so');
  mkdirSync(folder, { recursive: true });
  const started = Date.now();
  const output = compile(library);
  const faults = [...spillsIn(output), ...warningsIn(output)];
  const { size } = statSync(library);
  if (size > LIBRARY_BYTES_MAX) faults.push(`the library has ${size} bytes, more than ${LIBRARY_BYTES_MAX}`);
  for (const fault of faults) process.stderr.write(`${fault}\n`);
  if (faults.length > 0) process.exit(1);
  const seconds = Math.round((Date.now() - started) / 1000);
  const registers = [...output.matchAll(/Used (\d+) registers/g)].map(([, n]) => Number(n));
  process.stdout.write(
    `${library}: ${size} bytes, sm_${ARCHITECTURES.join(', sm_')}, ${registers.length} kernels without spills, ` +
      `at most ${Math.max(...registers)} registers, ${seconds} s\n`,
  );
}

/** Returns what the compiler said. */
function compile(library) {
  const { nvcc, flags } = findNvcc();
  const targets = ARCHITECTURES.map((a) => `-gencode=arch=compute_${a},code=sm_${a}`);
  const sources = ['device/device.cc', 'device/library.cc'].map((name) => join(SOURCE, name));
  const host = '-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-unused-parameter';
  return run(nvcc, [
    ...['-O3', '-std=c++20', '-x', 'cu', '-I', join(ROOT, 'native'), '--threads', '0'],
    ...[
      '-shared',
      '-cudart',
      'static',
      '-Xptxas',
      '-v',
      '-Xcompiler',
      host,
      ...flags,
      ...targets,
      ...sources,
    ],
    ...['-o', library],
  ]);
}

function findNvcc() {
  if (process.env.NVCC) return { nvcc: process.env.NVCC, flags: [] };
  const venv = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), `lorikeet/tools/nvcc-${CUDA}`);
  if (!existsSync(join(venv, 'complete'))) {
    process.stderr.write("build: CUDA's compiler from PyPI (270 MB)\n");
    run('python3', ['-m', 'venv', venv]);
    run(join(venv, 'bin/pip'), ['install', '--quiet', '--disable-pip-version-check', ...WHEELS]);
    mkdirSync(join(venv, 'complete'));
  }
  const python = readdirSync(join(venv, 'lib')).find((name) => name.startsWith('python3'));
  const cuda = join(venv, 'lib', python, 'site-packages/nvidia/cu13');
  // The compiler's own profile looks for lib64, which the wheels do not have.
  return { nvcc: join(cuda, 'bin/nvcc'), flags: [`-L${join(cuda, 'lib')}`] };
}

function spillsIn(output) {
  const spills = [];
  let kernel = '';
  for (const line of output.split('\n')) {
    kernel = /Function properties for (\S+)/.exec(line)?.[1] ?? kernel;
    const stored = Number(/(\d+) bytes spill stores/.exec(line)?.[1] ?? 0);
    if (stored > 0) spills.push(`${kernel} spills ${stored} bytes of registers`);
  }
  return spills;
}

function warningsIn(output) {
  return output.split('\n').filter((line) => /\bC75\d\d\b|warning/i.test(line));
}

function run(command, args) {
  const { status, error, stdout, stderr } = spawnSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (error) throw new Error(`Cannot run ${command}`, { cause: error });
  if (status !== 0) throw new Error(`${command} ended with ${status}:\n${`${stderr}${stdout}`.slice(-8000)}`);
  return `${stdout}${stderr}`;
}
