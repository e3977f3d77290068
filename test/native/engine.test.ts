import { execFileSync } from 'node:child_process';
import { resolve } from 'node:path';
import { expect, it } from 'vitest';

const ROOT = resolve(import.meta.dirname, '../..');
const BUILD = resolve(ROOT, 'build/engine-test');

// Compiles the engine first, which takes far more than a second.
it('ends service when a step throws, changes adapters within one, and poisons freed pages', {
  timeout: 600_000,
}, () => {
  const run = (command: string, ...args: string[]) =>
    execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe' });
  run(
    'cmake',
    '-S',
    resolve(ROOT, 'native'),
    '-B',
    BUILD,
    '-DLORIKEET_TESTS=ON',
    '-DCMAKE_BUILD_TYPE=Release',
  );
  run('cmake', '--build', BUILD, '--target', 'engine_test', '--parallel', '2');
  expect(run(resolve(BUILD, 'engine_test'))).toBe('5 passed\n');
});
