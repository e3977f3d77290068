import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { CHECKS } from '../../../server/conformance/checks.ts';
import { FLAGS } from '../../../server/conformance/config.ts';
import { type Flag, synopsis } from '../../../server/contract/flags.ts';
import { DEFECTS } from './defects.ts';

const README = readFileSync(new URL('../../../server/conformance/README.md', import.meta.url), 'utf8');

const NEEDED = { serving: ' (`--serving`)', token: ' (`--token-file`)' };

it('lists every check with its level and its sentence', () => {
  const rows = README.split('\n').filter((line) => /^\| `[a-z][a-z0-9-]*` \|/.test(line));
  const wanted = CHECKS.map(({ name, level, sentence, needs }) => {
    return `| \`${name}\` | ${level} | ${sentence}${needs === null ? '' : NEEDED[needs]} |`;
  });
  expect(rows).toEqual(wanted);
});

it('lists every flag with its default', () => {
  const rows = README.split('\n').filter((line) => line.startsWith('| `--'));
  const wanted = Object.entries<Flag>(FLAGS).map(([name, flag]) => {
    return `| \`${synopsis(name, flag).replaceAll('|', '\\|')}\` | ${flag.default ?? ''} | ${flag.help} |`.replace(
      '|  |',
      '| |',
    );
  });
  expect(rows).toEqual(wanted);
});

it('says how many defects it is held to', () => {
  expect(README).toContain(`each of ${DEFECTS.length} defects`);
});

it('names each check once', () => {
  const names = CHECKS.map(({ name }) => name);
  expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
});
