import { execFileSync } from 'node:child_process';
import { resolve } from 'node:path';
import { beforeAll, expect, it } from 'vitest';

const ROOT = resolve(import.meta.dirname, '../..');
const BUILD = resolve(ROOT, 'build/parts-test');

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe' });
}

beforeAll(() => {
  run('cmake', '-S', resolve(ROOT, 'native'), '-B', BUILD, '-DLORIKEET_TESTS=ON');
});

// Each compiles its sources first, which takes seconds.
it.each([
  ['draws as after a full sort, only what has weight, and scores that', 'sampler_test', '6 passed\n'],
  [
    'gives prompts what others can wait for, groups their turns, and shares blocks',
    'scheduler_test',
    '7 passed\n',
  ],
  ['refuses what no memory is left for, and goes on', 'packer_test', '3 passed\n'],
])('%s', { timeout: 240_000 }, (_, target, passed) => {
  run('cmake', '--build', BUILD, '--target', target);
  expect(run(resolve(BUILD, target))).toBe(passed);
});
