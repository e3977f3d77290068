/**
 * What `npm test` runs after the setup: the checks of the sources, then the tests. The last line on stdout is
 * `N passed, N failed` with `, N skipped` where there are any; each check counts as one test.
 * `npm test -- PATTERN…` runs only the test files whose path contains a pattern, and no checks.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { z } from 'zod';

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

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** The parts of vitest's JSON report that are counted. */
const Report = z.object({
  success: z.boolean(),
  numPassedTests: z.number(),
  numFailedTests: z.number(),
  numPendingTests: z.number(),
  numTodoTests: z.number(),
  testResults: z.array(z.object({ status: z.string(), assertionResults: z.array(z.unknown()) })),
});

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
  const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : '';
  process.stdout.write(`${counts.passed} passed, ${counts.failed} failed${skipped}\n`);
  return counts.failed === 0 ? 0 : 1;
}

async function runVitest(patterns: string[]): Promise<Counts> {
  const dir = mkdtempSync(join(tmpdir(), 'lorikeet-report-'));
  try {
    const file = join(dir, 'report.json');
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`];
    const code = await run(process.execPath, [join(BIN, 'vitest'), 'run', ...reporters, ...patterns]);
    return countsOf(file, code);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function countsOf(file: string, code: number): Counts {
  let report: z.infer<typeof Report>;
  try {
    report = Report.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch (error) {
    process.stdout.write(`vitest ended with ${code} and left no report: ${String(error)}\n`);
    return { passed: 0, failed: 1, skipped: 0 };
  }
  // A file that cannot be loaded has no tests to fail.
  const brokenFiles = report.testResults.filter(
    ({ status, assertionResults }) => status === 'failed' && assertionResults.length === 0,
  ).length;
  const failed = report.numFailedTests + brokenFiles;
  return {
    passed: report.numPassedTests,
    // An error outside of any test fails the run as well.
    failed: failed === 0 && (code !== 0 || !report.success) ? 1 : failed,
    skipped: report.numPendingTests + report.numTodoTests,
  };
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
