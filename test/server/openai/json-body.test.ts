import { describe, expect, it } from 'vitest';
import { parseJsonBody } from '../../../server/openai/json-body.ts';

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
