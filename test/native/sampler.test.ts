import { execFileSync } from 'node:child_process';
import { resolve } from 'node:path';
import { expect, it } from 'vitest';

const ROOT = resolve(import.meta.dirname, '../..');
const BUILD = resolve(ROOT, 'build/sampler-test');

// Compiles three files first, which takes seconds.
it('draws as after a full sort, and only what has weight', { timeout: 120_000 }, () => {
  const run = (command: string, ...args: string[]) =>
    execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe' });
  run('cmake', '-S', resolve(ROOT, 'native'), '-B', BUILD, '-DLORIKEET_TESTS=ON');
  run('cmake', '--build', BUILD, '--target', 'sampler_test');
  expect(run(resolve(BUILD, 'sampler_test'))).toBe('3 passed\n');
});
