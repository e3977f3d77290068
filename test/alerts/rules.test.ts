import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { findTool } from '../support/tools.ts';
import { allRules, RULES_FILE } from './rules.ts';

const RUNBOOK = readFileSync(join(import.meta.dirname, '../../charts/RUNBOOK.md'), 'utf8');
const folder = findTool('prometheus');
if (folder === null) process.stderr.write('no promtool: run `node test/support/setup.mjs cluster`\n');

/** By the alert that it is about. */
function sections(): Map<string, string> {
  const [, ...parts] = RUNBOOK.split(/^## /m);
  return new Map(parts.map((part) => [part.slice(0, part.indexOf('\n')), part]));
}

describe('the alerts of charts/lorikeet/files/alerts.yaml', () => {
  it.skipIf(folder === null)('are rules that promtool accepts', async () => {
    const { stdout } = await promisify(execFile)(join(folder as string, 'promtool'), [
      'check',
      'rules',
      '--lint-fatal',
      RULES_FILE,
    ]);
    expect(stdout).toContain(`SUCCESS: ${allRules().length} rules found`);
  });

  it('each has a section in the runbook, and each section an alert', () => {
    const alerts = allRules().map(({ alert }) => alert);
    expect([...sections().keys()].sort()).toEqual(alerts.toSorted());
    for (const { alert, annotations } of allRules())
      expect(annotations.runbook_url).toBe(`charts/RUNBOOK.md#${alert.toLowerCase()}`);
  });

  it.each([...sections()])('%s: the runbook says what it means, how to see it, what to do', (_, text) => {
    for (const part of ['**Means**', '**See**', '**Do**']) expect(text).toContain(`\n\n${part} `);
    expect(text, 'a PromQL expression or a command').toMatch(
      /`(kubectl|lorikeet_|vllm:|increase|rate|sum|changes)/,
    );
  });

  it('leads from one section to another only where there is one', () => {
    const named = [...RUNBOOK.matchAll(/\bLorikeet[A-Z]\w+/g)].map(([name]) => name);
    expect(named.filter((name) => !sections().has(name))).toEqual([]);
  });

  it.each(allRules().map((rule) => [rule.alert, rule] as const))(
    '%s ends with its threshold, which the chart may replace, and says about what it is',
    (_, { expr, annotations }) => {
      expect(expr).toMatch(/ (<=?|>=?) [0-9.]+$/);
      const labels = /by \((instance|instance, kind)\)|on \(instance\)|lorikeet_host_bytes|_spool_/.test(
        expr,
      );
      if (labels) expect(annotations.summary).toContain('{{ $labels.');
      expect(annotations.description.length).toBeLessThan(420);
    },
  );
});
