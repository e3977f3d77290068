import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const MAIN = join(import.meta.dirname, 'main.ts');

/** As a user who is not root: root is nobody in a user namespace without a mapping. */
function runAsNobody(args: string[]) {
  const program = [process.execPath, MAIN, ...args];
  const isRoot = process.getuid?.() === 0;
  const [command = '', ...rest] = isRoot ? ['unshare', '--user', ...program] : program;
  const { status, stdout } = spawnSync(command, rest, { encoding: 'utf8' });
  return { status, lines: stdout.trimEnd().split('\n') };
}

describe('where it cannot run', () => {
  const why = 'e2e:cluster cannot run here: it needs root, for containers, mounts and a network';

  it('says why and fails', () => {
    expect(runAsNobody([])).toEqual({ status: 1, lines: [why, '0 passed, 1 failed'] });
  });

  it('counts itself as skipped where it runs if possible', () => {
    expect(runAsNobody(['--if-possible'])).toEqual({
      status: 0,
      lines: [why, '0 passed, 0 failed, 1 skipped'],
    });
  });
});
