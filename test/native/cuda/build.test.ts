import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const ROOT = resolve(import.meta.dirname, '../../..');
const MINUTES = { timeout: 600_000 };
const execute = promisify(execFile);

async function run(command: string, args: string[]): Promise<string[]> {
  try {
    const { stdout } = await execute(command, args, { maxBuffer: 16 << 20 });
    return stdout.trimEnd().split('\n');
  } catch (cause) {
    const { stdout = '', stderr = '' } = cause as { stdout?: string; stderr?: string };
    throw new Error(`${command} failed:\n${`${stderr}${stdout}`.slice(0, 4000)}`, { cause });
  }
}

// Fetches 270 MB where they are not in the cache, and compiles for three architectures.
it("compiles with CUDA's compiler, without spilled registers", MINUTES, async () => {
  const lines = await run(process.execPath, [
    resolve(ROOT, 'native/executor/cuda/build.mjs'),
    resolve(ROOT, 'build/cuda'),
  ]);
  expect(lines.at(-1)).toMatch(/\d+ bytes, sm_80, sm_90a, sm_100, \d+ kernels without spills/);
});

// Compiles the backend, then runs five small models on the emulated device.
it('computes steps as the reference does, a request alone as in company', MINUTES, async () => {
  const build = resolve(ROOT, 'build/cuda-test');
  const source = resolve(ROOT, 'native/executor/cuda');
  await run('cmake', ['-S', source, '-B', build, '-DLORIKEET_TESTS=ON', '-DCMAKE_BUILD_TYPE=Release']);
  await run('cmake', ['--build', build, '--target', 'step_test', '--parallel', '2']);
  const lines = await run(resolve(build, 'step_test'), ['--seed', '3']);
  expect(lines.at(-1)).toBe('105 passed, 0 failed');
});
