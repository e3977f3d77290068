import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OpenAiError } from '../../../server/openai/errors.ts';
import { parseJsonBody } from '../../../server/openai/json-body.ts';

const times = <T>(count: number, item: T): T[] => Array(count).fill(item);

function refusalOf(act: () => unknown): { param: string | null; message: string } | null {
  try {
    act();
    return null;
  } catch (error) {
    if (!(error instanceof OpenAiError)) throw error;
    return { param: error.param, message: error.message };
  }
}

function seedOf(payload: string) {
  const { seed } = parseJsonBody(Buffer.from(payload)) as { seed: unknown };
  return { type: typeof seed, seed: String(seed) };
}

describe('a seed', () => {
  it.each([
    ['{"seed": 7}', 'number', '7'],
    ['{"seed": 9007199254740991}', 'number', '9007199254740991'],
    ['{"seed": 9223372036854775807}', 'bigint', '9223372036854775807'],
    ['{"seed" :\n-9223372036854775808, "n": 1}', 'bigint', '-9223372036854775808'],
    ['{"seed": 18446744073709551615}', 'bigint', '18446744073709551615'],
    ['{"seed": 9.5e18}', 'number', '9500000000000000000'],
    [
      '{"metadata": {"seed": 9223372036854775801}, "seed": 9223372036854775807}',
      'bigint',
      '9223372036854775807',
    ],
    ['{"seed": 9223372036854775801, "seed": 9223372036854775807}', 'bigint', '9223372036854775807'],
    [
      '{"prompt": "{\\"seed\\": 9223372036854775801}", "seed": 9223372036854775807}',
      'bigint',
      '9223372036854775807',
    ],
  ])('of %s is a %s, %s', (payload, type, seed) => {
    expect(seedOf(payload)).toEqual({ type, seed });
  });
});

describe('the bytes of a body', () => {
  const parse = (text: string) => parseJsonBody(Buffer.from(text));

  it('are what JSON.parse makes of them', () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        fc.pre(!text.includes('__proto__'));
        expect(parse(text)).toEqual(JSON.parse(text));
      }),
    );
  });

  it.each([
    [
      'many parts',
      `{"model":"a\\"{","stop":[${times(65_536, '""')}]}`,
      'stop',
      /at most 65536 texts, lists and maps/,
    ],
    ['depth', `{"model":{"stop":1},"tools":${'['.repeat(64)}`, 'tools', /at most 64 levels/],
    ['depth without a field', '['.repeat(65), null, /at most 64 levels/],
    ['no JSON', '{"a":"', null, /Expected JSON/],
    ['nothing', '', null, /received nothing/],
  ])('are refused for %s', (_, text, param, message) => {
    expect(refusalOf(() => parse(text))).toEqual({ param, message: expect.stringMatching(message) });
  });

  it('may be millions of numbers', () => {
    expect(parse(`[${times(1_000_000, 7)}]`)).toHaveLength(1_000_000);
  });
});
