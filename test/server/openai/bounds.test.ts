import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CHAT_BOUNDS,
  COMPLETION_BOUNDS,
  DETOKENIZE_BOUNDS,
  TOKENIZE_BOUNDS,
} from '../../../server/openai/body-bounds.ts';
import { type Bounds, requireBounded } from '../../../server/openai/bounds.ts';
import { ApiError } from '../../../server/openai/errors.ts';
import { parseJsonBody } from '../../../server/openai/json-body.ts';

function refusalOf(act: () => unknown): { param: string | null; message: string } | null {
  try {
    act();
    return null;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return { param: error.param, message: error.message };
  }
}

const times = <T>(count: number, item: T): T[] => Array(count).fill(item);
const keyed = (count: number, value: unknown) =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, value]));
const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)]);
const says = (content: unknown) => ({ messages: [{ role: 'user', content }] });

type Row = [name: string, bounds: Bounds, body: object, param: string, message: string];
const REFUSED: Row[] = [
  [
    '129 prompts',
    COMPLETION_BOUNDS,
    { prompt: times(129, 'a') },
    'prompt',
    'at most 128 items for prompt but received 129',
  ],
  [
    'a map as a prompt',
    COMPLETION_BOUNDS,
    { prompt: ['a', {}] },
    'prompt.1',
    'a list of token ids or a plain value for prompt.1 but received a map',
  ],
  [
    'a text among tokens',
    COMPLETION_BOUNDS,
    { prompt: [[1], [2, 'a']] },
    'prompt.1.1',
    'a token id for prompt.1.1 but received a string',
  ],
  [
    'half a token',
    COMPLETION_BOUNDS,
    { prompt: [1, 1.5] },
    'prompt.1',
    'a token id for prompt.1 but received 1.5',
  ],
  [
    '65 stop strings',
    CHAT_BOUNDS,
    { stop: times(65, 'a') },
    'stop',
    'at most 64 items for stop but received 65',
  ],
  [
    'a list as a stop string',
    CHAT_BOUNDS,
    { stop: [[]] },
    'stop.0',
    'a plain value for stop.0 but received a list',
  ],
  [
    '1025 biases',
    CHAT_BOUNDS,
    { logit_bias: keyed(1025, 1) },
    'logit_bias',
    'at most 1024 keys for logit_bias but received 1025',
  ],
  [
    '4097 messages',
    CHAT_BOUNDS,
    { messages: times(4097, {}) },
    'messages',
    'at most 4096 items for messages but received 4097',
  ],
  [
    '1025 parts',
    TOKENIZE_BOUNDS,
    says(times(1025, {})),
    'messages.0.content',
    'at most 1024 items for messages.0.content but received 1025',
  ],
  [
    'many parts in all',
    CHAT_BOUNDS,
    { messages: times(40, { content: times(1000, {}) }) },
    'messages.32.content',
    'at most 32768 values in all for messages.32.content but received 33073',
  ],
  [
    '65 template variables',
    CHAT_BOUNDS,
    { chat_template_kwargs: keyed(65, 1) },
    'chat_template_kwargs',
    'at most 64 keys for chat_template_kwargs but received 65',
  ],
  [
    'a deep template variable',
    TOKENIZE_BOUNDS,
    { chat_template_kwargs: { a: nested(9) } },
    `chat_template_kwargs.a${'.0'.repeat(8)}`,
    'a plain value',
  ],
  ['a deep tool', CHAT_BOUNDS, { tools: nested(25) }, `tools${'.0'.repeat(24)}`, 'a plain value'],
  [
    'texts for tokens',
    DETOKENIZE_BOUNDS,
    { tokens: ['a', 'b'] },
    'tokens.0',
    'a token id for tokens.0 but received a string',
  ],
];

describe('a body is refused at its first fault for', () => {
  it.each(REFUSED)('%s', (_, bounds, body, param, message) => {
    expect(refusalOf(() => requireBounded(body, bounds))).toEqual({
      param,
      message: expect.stringContaining(`Expected ${message}`),
    });
  });
});

describe('a body may be', () => {
  it.each<[string, Bounds, object]>([
    ['a prompt of a million tokens', COMPLETION_BOUNDS, { prompt: times(1_000_000, 7) }],
    ['128 prompts', COMPLETION_BOUNDS, { prompt: times(128, [7, 8]) }],
    [
      '4096 messages in parts',
      CHAT_BOUNDS,
      { messages: times(4096, { role: 'user', content: [{ type: 'text', text: '' }] }) },
    ],
    ['a tool with a schema', CHAT_BOUNDS, { tools: times(64, nested(20)) }],
    ['of unknown fields', CHAT_BOUNDS, { metadata: nested(60) }],
  ])('%s', (_, bounds, body) => {
    expect(refusalOf(() => requireBounded(body, bounds))).toBeNull();
  });
});

describe('the bytes of a body', () => {
  const parse = (text: string) => parseJsonBody(Buffer.from(text));

  it('are what JSON.parse makes of them', () => {
    fc.assert(fc.property(fc.json(), (text) => void expect(parse(text)).toEqual(JSON.parse(text))));
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
