import { describe, expect, it } from 'vitest';
import { facts, table } from '../../../operator/cli/table.ts';
import { accountText, ageText, durationMs, roughly } from '../../../operator/cli/words.ts';

describe('an age', () => {
  const now = new Date('2026-06-10T12:00:00Z');
  const ago = (seconds: number) => ageText(new Date(now.getTime() - seconds * 1000).toISOString(), now);

  it.each([
    [0, '0s'],
    [119, '119s'],
    [120, '2m'],
    [125, '2m5s'],
    [601, '10m'],
    [3 * 3600 + 61, '3h1m'],
    [9 * 3600 + 61, '9h'],
    [49 * 3600, '2d1h'],
    [9 * 86400 + 3600, '9d'],
    [-5, '0s'],
  ])('of %d seconds is %s, as kubectl writes it', (seconds, text) => {
    expect(ago(seconds)).toBe(text);
  });

  it('of nothing is a dash', () => {
    expect(ageText(undefined, now)).toBe('-');
    expect(ageText('yesterday', now)).toBe('-');
  });
});

it.each([
  ['0', 0],
  ['250ms', 250],
  ['30s', 30_000],
  ['1m30s', 90_000],
  ['2h', 7_200_000],
  ['30', null],
  ['s', null],
  ['-1s', null],
  ['1d', null],
])('the time %s is %s ms', (text, ms) => {
  expect(durationMs(text)).toBe(ms);
});

it.each([
  [0, '0'],
  [0.00004, '4.0e-5'],
  [0.1234, '0.123'],
  [1.234, '1.23'],
  [12.34, '12.3'],
  [1234.5, '1235'],
  [null, '-'],
])('%s is roughly %s', (value, text) => {
  expect(roughly(value)).toBe(text);
});

it('a ServiceAccount is told by namespace and name, anybody else by the name that there is', () => {
  expect(accountText('system:serviceaccount:models:trainer')).toBe('models/trainer');
  expect(accountText('jane@example.com')).toBe('jane@example.com');
  expect(accountText(undefined)).toBe('-');
});

describe('a table', () => {
  it('has columns as wide as their widest cell, and no blanks at the end', () => {
    const rows = [
      ['a', 'one', ''],
      ['longer', '2', 'x'],
    ];
    expect(table(['NAME', 'B', 'C'], rows)).toBe('NAME     B     C\na        one   -\nlonger   2     x\n');
  });

  it('lets no control character of an object through to the terminal', () => {
    expect(table(['A'], [['red\u001b[31m\nline']])).toBe('A\nred [31m line\n');
    expect(facts([['Name', 'a\u0007b']])).toBe('Name:  a b\n');
  });
});

it('facts without a value are left out', () => {
  expect(
    facts([
      ['Name', 'sql'],
      ['From', null],
      ['Served as', ''],
      ['Longer', 'x'],
    ]),
  ).toBe('Name:    sql\nLonger:  x\n');
});
