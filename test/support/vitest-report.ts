import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';

export interface Counts {
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

/** `run` calls vitest with these reporters besides its own arguments, and answers its exit code. */
export async function countVitest(run: (reporters: string[]) => Promise<number>): Promise<Counts> {
  const dir = mkdtempSync(join(tmpdir(), 'lorikeet-report-'));
  try {
    const file = join(dir, 'report.json');
    const code = await run(['--reporter=default', '--reporter=json', `--outputFile.json=${file}`]);
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

/** The line that closes a run. */
export function closingLine({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}\n`;
}
