import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const README = readFileSync(join(import.meta.dirname, 'README.md'), 'utf8');

/** `file` "title", "title" */
function citations(): [string, string][] {
  return [...README.matchAll(/`([\w./-]+\.test\.ts)`((?:,? "[^"]+")+)/g)].flatMap(([, file, titles]) =>
    [...(titles as string).matchAll(/"([^"]+)"/g)].map(([, title]): [string, string] => [
      file as string,
      title as string,
    ]),
  );
}

/** Of all tables, without what is before a dash. */
function numbers(heading: string): number[] {
  const [, rest = ''] = README.split(`## ${heading}`);
  const [table = ''] = rest.split('\n## ');
  return [...table.matchAll(/^\| ([\d, –]+) \|/gm)].flatMap(([, cell]) =>
    (cell as string).split(', ').flatMap((part) => {
      const [first = 0, last = first] = part.split('–').map(Number);
      return Array.from({ length: last - first + 1 }, (_, index) => first + index);
    }),
  );
}

describe('the tests that test/README.md names', () => {
  it.each(citations())('%s: %s', (file, title) => {
    expect(readFileSync(join(import.meta.dirname, file), 'utf8').replaceAll("\\'", "'")).toContain(title);
  });

  it('show all 66 traps of the engine, each once', () => {
    const traps = numbers('Engine: traps of multi-LoRA serving').sort((a, b) => a - b);
    expect(traps).toEqual(Array.from({ length: 66 }, (_, index) => index + 1));
  });
});
