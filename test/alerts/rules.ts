import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';

export const RULES_FILE = resolve(import.meta.dirname, '../../charts/lorikeet/files/alerts.yaml');

const Rule = z.strictObject({
  alert: z.string().regex(/^Lorikeet[A-Z]\w+$/),
  expr: z.string(),
  for: z.string().optional(),
  labels: z.strictObject({ severity: z.enum(['critical', 'warning', 'info']) }),
  annotations: z.strictObject({
    summary: z.string().min(1),
    description: z.string().min(1),
    runbook_url: z.string(),
  }),
});
export type Rule = z.infer<typeof Rule>;

const Rules = z.strictObject({
  groups: z.array(
    z.strictObject({ name: z.string(), interval: z.string().optional(), rules: z.array(Rule) }),
  ),
});
export type Rules = z.infer<typeof Rules>;

export function readRules(): Rules {
  return Rules.parse(parse(readFileSync(RULES_FILE, 'utf8')));
}

export function allRules(): Rule[] {
  return readRules().groups.flatMap(({ rules }) => rules);
}
