import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { parse } from 'yaml';
import { quantityBytes } from '../../operator/api/quantity.ts';
import { imageOptions } from '../bench/operator/process.ts';
import { ROOT } from '../e2e/world.ts';

const SCRIPT = 'console.log(process.getBuiltinModule("v8").getHeapStatistics().heap_size_limit)';

it('leaves of the memory of its pod as much as its heap may take to what is outside of it', () => {
  const env = { ...process.env, NODE_OPTIONS: imageOptions() };
  const heapBytes = Number(execFileSync(process.execPath, ['-e', SCRIPT], { env, encoding: 'utf8' }));
  const values = parse(readFileSync(join(ROOT, 'charts/lorikeet/values.yaml'), 'utf8'));
  const podBytes = quantityBytes(values.resources.limits.memory);
  expect(heapBytes).toBeLessThanOrEqual(0.6 * podBytes);
});
