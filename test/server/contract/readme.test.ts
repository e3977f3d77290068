import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { ERRORS, type ErrorKind } from '../../../server/contract/errors.ts';

/** Rows such as "| `a`, `b` | 404, 405 | 1 s | when |": as many statuses as codes, or one for all. */
function catalogue(markdown: string): Record<string, ErrorKind> {
  const rows = [
    ...markdown.matchAll(/^\| (`[a-z_]+`(?:, `[a-z_]+`)*) +\| ([0-9, ]+?) +\| (?:([0-9]+) s)? +\|/gm),
  ];
  return Object.fromEntries(
    rows.flatMap(([, codes = '', statuses = '', again]) => {
      const status = statuses.split(', ').map(Number);
      const retryAfterSeconds = again === undefined ? null : Number(again);
      return codes.split(', ').map((code, i) => {
        const kind = { status: status[i] ?? status[0] ?? 0, retryAfterSeconds };
        return [code.replaceAll('`', ''), kind];
      });
    }),
  );
}

it('the README lists every code with its status, and when to try again', () => {
  const readme = readFileSync(new URL('../../../server/contract/README.md', import.meta.url), 'utf8');
  expect(catalogue(readme)).toEqual(ERRORS);
});
