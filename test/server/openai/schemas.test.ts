import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ApiError } from '../../../server/openai/errors.ts';
import { ChatBody, CompletionBody, parseBody } from '../../../server/openai/schemas.ts';
import { requireSupported } from '../../../server/openai/unsupported.ts';

const SCHEMAS = { completion: CompletionBody, chat: ChatBody };
const FIELDS = [
  ...new Set([...Object.keys(CompletionBody.shape), ...Object.keys(ChatBody.shape), 'tools', 'suffix']),
];

function accepts(endpoint: keyof typeof SCHEMAS, body: unknown): boolean {
  try {
    requireSupported(body, endpoint);
    parseBody(SCHEMAS[endpoint], body);
    return true;
  } catch (error) {
    if (error instanceof ApiError && error.status === 400 && error.message.length > 0) return false;
    throw error;
  }
}

describe.each(['completion', 'chat'] as const)('the body of a %s', (endpoint) => {
  it('is accepted or refused with 400, whatever it is', () => {
    fc.assert(fc.property(fc.jsonValue(), (body) => void accepts(endpoint, body)));
  });

  it('is accepted or refused with 400, whatever its fields hold', () => {
    const body = fc.dictionary(fc.constantFrom(...FIELDS), fc.jsonValue({ maxDepth: 2 }));
    const whole = body.map((fields) => ({
      model: 'm',
      prompt: 'p',
      messages: [{ role: 'user', content: 'c' }],
      ...fields,
    }));
    let accepted = 0;
    fc.assert(
      fc.property(whole, (fields) => {
        if (accepts(endpoint, fields)) accepted += 1;
      }),
      { numRuns: 500 },
    );
    expect(accepted).toBeGreaterThan(0);
  });
});
