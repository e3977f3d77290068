import { fastify } from 'fastify';
import { describe, expect, it } from 'vitest';
import { addJsonParser } from '../../../server/openai/json-body.ts';

const app = fastify();
addJsonParser(app);
app.post('/', async ({ body }) => {
  const { seed } = body as { seed: unknown };
  return { type: typeof seed, seed: String(seed) };
});

async function seedOf(payload: string) {
  const reply = await app.inject({
    method: 'POST',
    url: '/',
    headers: { 'content-type': 'application/json' },
    payload,
  });
  return reply.json();
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
  ])('of %s is a %s, %s', async (payload, type, seed) => {
    expect(await seedOf(payload)).toEqual({ type, seed });
  });
});
