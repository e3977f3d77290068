import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { ERROR_STATUS } from '../../../server/contract/errors.ts';

/** Rows such as "| `a`, `b` | 404, 405 | when |": as many statuses as codes, or one for all. */
function catalogue(markdown: string): Record<string, number> {
  const rows = [...markdown.matchAll(/^\| (`[a-z_]+`(?:, `[a-z_]+`)*) +\| ([0-9, ]+?) +\|/gm)];
  return Object.fromEntries(
    rows.flatMap(([, codes = '', statuses = '']) => {
      const status = statuses.split(', ').map(Number);
      return codes.split(', ').map((code, i) => [code.replaceAll('`', ''), status[i] ?? status[0] ?? 0]);
    }),
  );
}

it('the README lists every code with its status', () => {
  const readme = readFileSync(new URL('../../../server/contract/README.md', import.meta.url), 'utf8');
  expect(catalogue(readme)).toEqual(ERROR_STATUS);
});
