/**
 * What `npm test` runs after the setup: the checks of the sources, then the tests. The last line on stdout is
 * `N passed, N failed` with `, N skipped` where there are any; each check counts as one test.
 * `npm test -- PATTERN…` runs only the test files whose path contains a pattern, and no checks.
 */
import { spawn } from 'node:child_process';
import { join, resolve } from 'node:path';
import { type Counts, closingLine, countVitest } from './vitest-report.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const BIN = join(ROOT, 'node_modules/.bin');

const CHECKS = [
  { name: 'biome', command: join(BIN, 'biome'), args: ['check', '.'] },
  { name: 'tsc', command: join(BIN, 'tsc'), args: ['--noEmit'] },
  { name: 'definitions', command: process.execPath, args: ['operator/api/generate.ts', '--check'] },
  {
    name: 'dashboards',
    command: process.execPath,
    args: ['operator/telemetry/dashboards/generate.ts', '--check'],
  },
];

async function main(patterns: string[]): Promise<number> {
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  for (const { name, command, args } of patterns.length === 0 ? CHECKS : []) {
    process.stdout.write(`check: ${name}\n`);
    const code = await run(command, args);
    if (code === 0) counts.passed += 1;
    else {
      counts.failed += 1;
      process.stdout.write(`check: ${name} failed with ${code}\n`);
    }
  }
  add(counts, await runVitest(patterns));
  process.stdout.write(closingLine(counts));
  return counts.failed === 0 ? 0 : 1;
}

function runVitest(patterns: string[]): Promise<Counts> {
  return countVitest((reporters) =>
    run(process.execPath, [join(BIN, 'vitest'), 'run', ...reporters, ...patterns]),
  );
}

function add(counts: Counts, more: Counts): void {
  counts.passed += more.passed;
  counts.failed += more.failed;
  counts.skipped += more.skipped;
}

function run(command: string, args: string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? 1));
  });
}

process.exitCode = await main(process.argv.slice(2));
