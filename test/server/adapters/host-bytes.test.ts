import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const FILL = join(import.meta.dirname, 'fill-tier.ts');

/** What is dropped goes when V8 collects garbage, and malloc keeps some of its pages. */
const LEFT_BYTES_MAX = 128 << 20;

interface Growth {
  process: number;
  tier: number;
}

async function fill(rounds: number, folders: string[]): Promise<Record<'filling' | 'replacing', Growth>> {
  const args = ['--expose-gc', FILL, String(rounds), ...folders];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  return JSON.parse(stdout);
}

// Seconds each: thousands of adapters, in a process of its own, as it is the process that is measured.
describe('a full host tier', { timeout: 180_000 }, () => {
  it.each([
    ['of small adapters', ['rank-1-f16']],
    ['of configs with a pattern', ['regex-targets']],
    ['of larger adapters', ['rank-pattern']],
  ])('%s takes what it counts', async (_, folders) => {
    const { filling } = await fill(1, folders);
    expect(filling.process / filling.tier).toBeGreaterThan(0.85);
    expect(filling.process / filling.tier).toBeLessThan(1.15);
  });

  it('takes little more once all of it has been replaced', async () => {
    const { replacing } = await fill(3, [
      'rank-1-f16',
      'json',
      'rank-pattern',
      'some-layers',
      'regex-targets',
    ]);
    expect(replacing.process).toBeLessThan(LEFT_BYTES_MAX);
  });
});
