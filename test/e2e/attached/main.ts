/**
 * `npm run e2e:vllm` and `e2e:sglang`: the sidecar beside a real one on the processor. The last line on stdout is
 * `N passed, N failed`. `-- SUITE` runs one alone: protocol, story or adapters.
 */
import { spawn } from 'node:child_process';
import { join, resolve } from 'node:path';
import { closingLine, countVitest } from '../../support/vitest-report.ts';

const ROOT = resolve(import.meta.dirname, '../../..');
const VITEST = join(ROOT, 'node_modules/.bin/vitest');
const CONFIG = join(import.meta.dirname, 'vitest.config.ts');

const [engine = '', suite = ''] = process.argv.slice(2);
const suites = `test/e2e/${engine}/${suite}`;

const counts = await countVitest(
  (reporters) =>
    new Promise((done, reject) => {
      const args = [VITEST, 'run', '--config', CONFIG, ...reporters, suites];
      const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
      child.once('error', reject);
      child.once('close', (code) => done(code ?? 1));
    }),
);
process.stdout.write(closingLine(counts));
process.exitCode = counts.failed === 0 ? 0 : 1;
