import type { Outcome, Result, Target } from './suite.ts';

export interface Summary {
  passed: number;
  failed: number;
  /** SHOULDs that are not met. */
  warned: number;
  skipped: number;
}

export interface Run extends Outcome {
  target: Pick<Target, 'admin' | 'serving'>;
}

export function summaryOf(results: readonly Result[]): Summary {
  const count = (of: (result: Result) => boolean) => results.filter(of).length;
  return {
    passed: count(({ outcome }) => outcome === 'pass'),
    failed: count(isFailed),
    warned: count((result) => result.outcome === 'fail' && !isFailed(result)),
    skipped: count(({ outcome }) => outcome === 'skip'),
  };
}

/** Without a line at its end. */
export function lineOf(result: Result): string {
  const { check, reason, expected, actual } = result;
  const word = wordOf(result);
  if (reason !== null) return `${word.padEnd(5)} ${check.name}: ${reason}`;
  if (expected === null) return `${word.padEnd(5)} ${check.name}`;
  return [
    `${word.padEnd(5)} ${check.name}`,
    `        ${check.level}: ${check.sentence}`,
    `        expected ${expected}`,
    `        received ${actual}`,
  ].join('\n');
}

export function summaryLine(results: readonly Result[]): string {
  const { passed, failed, warned, skipped } = summaryOf(results);
  const seconds = (results.reduce((sum, { ms }) => sum + ms, 0) / 1000).toFixed(1);
  return `${passed} passed, ${failed} failed, ${warned} warned, ${skipped} skipped in ${seconds} s`;
}

export function jsonOf({ target, pod, results }: Run): string {
  const checks = results.map((result) => {
    const { check, reason, expected, actual, ms } = result;
    const { name, level, sentence } = check;
    return { name, level, sentence, outcome: wordOf(result).toLowerCase(), reason, expected, actual, ms };
  });
  const { bootId, baseModel } = pod;
  const about = { ...target, bootId, baseModel: { name: baseModel.name, digest: baseModel.digest } };
  return JSON.stringify({ ...about, summary: summaryOf(results), checks }, null, 2);
}

/** As CI systems read it: a SHOULD that is not met is a pass with a word in its output. */
export function junitOf({ target, results }: Run): string {
  const { failed, skipped } = summaryOf(results);
  const totals = `tests="${results.length}" failures="${failed}" skipped="${skipped}"`;
  const cases = results.map((result) => {
    const { check, ms } = result;
    const head = `    <testcase classname="conformance" name="${escaped(check.name)}" time="${ms / 1000}"`;
    const inner = innerOf(result);
    return inner === null ? `${head}/>` : `${head}>\n      ${inner}\n    </testcase>`;
  });
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites ${totals}>`,
    `  <testsuite name="${escaped(target.admin)}" ${totals}>`,
    ...cases,
    '  </testsuite>',
    '</testsuites>',
  ].join('\n');
}

function innerOf(result: Result): string | null {
  const { check, reason, expected, actual } = result;
  if (reason !== null) return `<skipped message="${escaped(reason)}"/>`;
  if (expected === null) return null;
  const text = escaped(`${check.level}: ${check.sentence}\nexpected ${expected}\nreceived ${actual}`);
  return isFailed(result)
    ? `<failure message="${escaped(check.sentence)}">${text}</failure>`
    : `<system-out>${text}</system-out>`;
}

function isFailed({ outcome, check }: Result): boolean {
  return outcome === 'fail' && check.level === 'MUST';
}

function wordOf(result: Result): string {
  if (isFailed(result)) return 'FAIL';
  return result.outcome === 'fail' ? 'warn' : result.outcome;
}

/** Answers of a stranger may hold what XML has no sign for. */
function escaped(text: string): string {
  const signs: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  return text
    .replace(/[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD]/g, '?')
    .replace(/[&<>"]/g, (sign) => signs[sign] ?? sign);
}
