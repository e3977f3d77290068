/**
 * Builds the addon with sanitizers and runs a churn of stage, swap, submit, cancel, garbage collection and close
 * under them: `node test/native/sanitize.ts [address|thread]`. Exits 1 where a sanitizer found something.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '../..');

interface Sanitizer {
  flags: string;
  build: string;
  library: string;
  environment: Record<string, string>;
}

const SANITIZERS: Record<string, Sanitizer> = {
  address: {
    flags: 'address,undefined',
    build: 'build/addon-asan',
    library: 'libasan.so',
    // Node itself leaks at exit by design, and LeakSanitizer says nothing there anyway.
    environment: {
      ASAN_OPTIONS: 'detect_leaks=0',
      UBSAN_OPTIONS: 'print_stacktrace=1',
    },
  },
  thread: {
    flags: 'thread',
    build: 'build/addon-tsan',
    library: 'libtsan.so',
    environment: { TSAN_OPTIONS: 'exitcode=0:history_size=4' },
  },
};
const SCENARIOS = ['churn', 'exit-while-busy'];
const REPORT = /ERROR: AddressSanitizer|runtime error:|WARNING: ThreadSanitizer/;

const wanted = process.argv[2];
const names = wanted === undefined ? Object.keys(SANITIZERS) : [wanted];
let failures = 0;
for (const name of names) {
  const sanitizer = SANITIZERS[name];
  if (!sanitizer) throw new Error(`Expected address or thread but received ${name}`);
  build(sanitizer);
  for (const scenario of SCENARIOS) failures += run(name, sanitizer, scenario) ? 0 : 1;
  failures += runCudaSteps(name, sanitizer) ? 0 : 1;
}
process.exitCode = failures === 0 ? 0 : 1;

function build({ flags, build }: Sanitizer, source = 'native', ...more: string[]): void {
  const folder = resolve(ROOT, build);
  const generator = existsSync(resolve(folder, 'CMakeCache.txt')) ? [] : ['-G', 'Ninja'];
  const configure = ['-S', resolve(ROOT, source), '-B', folder, ...generator, ...more];
  const type = ['-DCMAKE_BUILD_TYPE=RelWithDebInfo', `-DLORIKEET_SANITIZE=${flags}`];
  execFileSync('cmake', [...configure, ...type], { stdio: ['ignore', 'ignore', 'inherit'] });
  execFileSync('cmake', ['--build', folder, '--parallel', '2'], { stdio: ['ignore', 'ignore', 'inherit'] });
}

/** On the emulated device, whose fibers are threads to the thread sanitizer: a missing barrier is a race. */
function runCudaSteps(name: string, sanitizer: Sanitizer): boolean {
  const folder = sanitizer.build.replace('addon', 'cuda');
  build({ ...sanitizer, build: folder }, 'native/executor/cuda', '-DLORIKEET_TESTS=ON');
  // TSan wants its addresses where they are without randomization.
  const ended = spawnSync('setarch', ['-R', resolve(ROOT, folder, 'step_test'), '--quick', '--seed', '3'], {
    env: { ...process.env, ...sanitizer.environment, TSAN_OPTIONS: 'halt_on_error=1:history_size=0' },
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  process.stdout.write(
    `${name} cuda steps: ${ended.status === 0 ? 'clean' : `exit ${ended.status ?? ended.signal}`}\n`,
  );
  if (ended.status !== 0) process.stderr.write(`${ended.stdout}${ended.stderr}`.slice(0, 20_000));
  return ended.status === 0;
}

function run(name: string, { build, library, environment }: Sanitizer, scenario: string): boolean {
  const preload = execFileSync('gcc', [`-print-file-name=${library}`], { encoding: 'utf8' }).trim();
  const env = {
    ...process.env,
    ...environment,
    LD_PRELOAD: preload,
    LORIKEET_ADDON: resolve(ROOT, build, 'lorikeet.node'),
  };
  const script = resolve(ROOT, 'test/native/sanitize-scenario.ts');
  // V8 is not instrumented: on threads of its own it would look like one race after another.
  const args = ['--expose-gc', '--single-threaded', script, scenario];
  const ended = spawnSync(process.execPath, args, {
    env,
    encoding: 'utf8',
    timeout: 300_000,
    maxBuffer: 1 << 28,
  });
  const found = ours(ended.stderr);
  const clean = ended.status === 0 && found.length === 0;
  process.stdout.write(`${name} ${scenario}: ${clean ? 'clean' : `exit ${ended.status ?? ended.signal}`}\n`);
  if (!clean) process.stderr.write(`${ended.stdout}\n${found.join('\n').slice(0, 20_000) || ended.stderr}\n`);
  return clean;
}

/** The reports that have a frame of the addon; the others are about Node alone. */
function ours(stderr: string): string[] {
  const reports = stderr.split(/^=+$/m).filter((part) => REPORT.test(part));
  return reports.filter((report) => report.includes('lorikeet'));
}
