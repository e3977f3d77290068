import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OpenAiError } from '../../../server/openai/errors.ts';
import {
  ChatBody,
  CompletionBody,
  parseBody,
  TokenizeBody,
  templateVariables,
} from '../../../server/openai/schemas.ts';
import { requireSupported } from '../../../server/openai/unsupported.ts';

const SCHEMAS = { completion: CompletionBody, chat: ChatBody, tokenize: TokenizeBody };
const FIELDS = [
  ...new Set([...Object.keys(CompletionBody.shape), ...Object.keys(ChatBody.shape), 'tools', 'suffix']),
];

function accepts(endpoint: keyof typeof SCHEMAS, body: unknown): boolean {
  try {
    requireSupported(body, endpoint);
    parseBody(SCHEMAS[endpoint] as typeof ChatBody, body);
    return true;
  } catch (error) {
    if (error instanceof OpenAiError && error.status === 400 && error.message.length > 0) return false;
    throw error;
  }
}

describe.each(['completion', 'chat', 'tokenize'] as const)('the body of a %s', (endpoint) => {
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

const PROMPT = (received: string) =>
  `prompt: Expected a text, token ids, or a list of either but received ${received}`;
const turn = { role: 'assistant', content: 'Here.' };
const user = { role: 'user', content: 'Hi' };
const CHAT = { model: 'm', messages: [user] };
const COMPLETION = { model: 'm', prompt: 'Hi' };

describe('what other servers and benchmarks send', () => {
  it.each<[string, 'completion' | 'chat', object]>([
    ['best_of 1', 'completion', { best_of: 1 }],
    [
      'a least length that is reached anyway',
      'completion',
      { min_tokens: 4, max_tokens: 4, ignore_eos: true },
    ],
    ['the same for a chat', 'chat', { min_tokens: 4, max_completion_tokens: 4, ignore_eos: true }],
    ['64 stop strings', 'chat', { stop: Array.from({ length: 64 }, (_, i) => `\nName${i}:`) }],
    ['no reasoning', 'chat', { reasoning_effort: 'none' }],
    ['a template variable that is null', 'chat', { chat_template_kwargs: { enable_thinking: null } }],
    ['an empty list of calls', 'chat', { messages: [user, { ...turn, tool_calls: [] }] }],
    ['the nulls of vLLM', 'chat', { messages: [user, { ...turn, function_call: null, audio: null }] }],
    ['an assistant without text', 'chat', { messages: [user, { role: 'assistant', content: null }] }],
  ])('is taken: %s', (_, endpoint, fields) => {
    expect(accepts(endpoint, { ...(endpoint === 'chat' ? CHAT : COMPLETION), ...fields })).toBe(true);
  });

  it.each<[string, keyof typeof SCHEMAS, object]>([
    ['best_of 2', 'completion', { best_of: 2 }],
    ['a least length beyond the longest', 'completion', { min_tokens: 5, max_tokens: 4, ignore_eos: true }],
    ['a least length that an end token cuts', 'completion', { min_tokens: 4, max_tokens: 4 }],
    [
      'a least length that a stop string cuts',
      'completion',
      { min_tokens: 4, max_tokens: 4, ignore_eos: true, stop: 'x' },
    ],
    ['some reasoning', 'chat', { reasoning_effort: 'low' }],
    ['a second begin token', 'chat', { add_special_tokens: true }],
    ['arguments of a plugin', 'completion', { vllm_xargs: { a: 1 } }],
    ['a template of its own', 'tokenize', { chat_template: '{{ messages }}' }],
  ])('is refused: %s', (_, endpoint, fields) => {
    expect(accepts(endpoint, { ...(endpoint === 'completion' ? COMPLETION : CHAT), ...fields })).toBe(false);
  });

  it('an assistant without text said nothing', () => {
    const body = parseBody(ChatBody, { ...CHAT, messages: [user, { role: 'assistant', content: null }] });
    expect(body.messages).toEqual([user, { role: 'assistant', content: '' }]);
  });

  it('no reasoning is what templates call no thinking, unless the client says otherwise', () => {
    const variables = (fields: object) => templateVariables(parseBody(ChatBody, { ...CHAT, ...fields }));
    expect(variables({ reasoning_effort: 'none' })).toEqual({ enable_thinking: false });
    const both = { reasoning_effort: 'none', chat_template_kwargs: { enable_thinking: true } };
    expect(variables(both)).toEqual({ enable_thinking: true });
    expect(variables({})).toEqual({});
  });
});

describe('logprobs of a completion', () => {
  it.each([
    [true, 1],
    [false, null],
    [0, 0],
    [5, 5],
    [null, null],
  ])('%s asks for %s alternatives', (logprobs, wanted) => {
    expect(parseBody(CompletionBody, { ...COMPLETION, logprobs }).logprobs).toBe(wanted);
  });
});

describe('a refusal names the field and what would be right:', () => {
  it.each<[keyof typeof SCHEMAS, object, string]>([
    ['chat', { stop: 7 }, 'stop: Expected a text or a list of texts but received a number'],
    ['chat', { stop: Array(65).fill('x') }, 'stop: Expected at most 64 stop strings but received 65'],
    [
      'chat',
      { stop: Array(17).fill('x'.repeat(1000)) },
      'stop: Expected at most 16000 characters in all stop strings',
    ],
    ['chat', { stop: ['a', null] }, 'stop.1: Invalid input: expected string, received null'],
    ['chat', { stop_token_ids: [1, -1] }, 'stop_token_ids.1: Expected a token id, a whole number from 0'],
    ['chat', { logit_bias: { x: 1 } }, 'logit_bias.x: Expected a token id as the key'],
    ['chat', { logit_bias: [] }, 'logit_bias: Expected an object but received a list'],
    ['chat', { logit_bias: { 1: 101 } }, 'logit_bias.1: Too big: expected number to be <=100'],
    [
      'chat',
      { chat_template_kwargs: { tools: [] } },
      'chat_template_kwargs.tools: Expected a text, a number or true or false but received a list',
    ],
    ['chat', { messages: 'Hi' }, 'messages: Expected a list of messages but received a text'],
    ['chat', { messages: [] }, 'messages: Expected 1 to 4096 messages but received 0'],
    [
      'chat',
      { messages: [{ role: 'user', content: null }] },
      'messages.0.content: Expected a text or a list of text parts but received null',
    ],
    [
      'chat',
      { messages: [{ role: 'user' }] },
      'messages.0.content: Expected a text or a list of text parts but received nothing',
    ],
    [
      'chat',
      { messages: [{ role: 'user', content: [{ type: 'image_url' }] }] },
      'messages.0.content.0.type: Invalid input: expected "text"',
    ],
    [
      'chat',
      { messages: [{ role: 'assistant', content: null, tool_calls: [{ id: 'c' }] }] },
      'messages.0.tool_calls: is not supported',
    ],
    [
      'chat',
      { messages: [{ role: 'assistant', content: null, function_call: { name: 'f' } }] },
      'messages.0.function_call: is not supported',
    ],
    ['chat', { seed: 1.5 }, 'seed: Expected a whole number of 64 bits'],
    ['chat', { seed: 2 ** 64 }, 'seed: Expected a whole number of 64 bits'],
    ['completion', { prompt: undefined }, PROMPT('nothing')],
    ['completion', { prompt: {} }, PROMPT('an object')],
    ['completion', { prompt: [{}] }, 'prompt.0: Expected a token id, a whole number from 0'],
    ['completion', { prompt: [] }, 'prompt: Expected at least 1 token ids but received 0'],
    ['completion', { prompt: ['a', 1] }, 'prompt.1: Invalid input: expected string, received number'],
    ['completion', { prompt: [[1], ['a']] }, 'prompt.1.0: Expected a token id, a whole number from 0'],
    ['completion', { prompt: Array(129).fill('a') }, 'prompt: Expected 1 to 128 prompts but received 129'],
    ['tokenize', { messages: 7 }, 'messages: Expected a list of messages but received a number'],
    ['tokenize', {}, 'prompt: Invalid input: expected string, received undefined'],
  ])('%s %j', (endpoint, fields, message) => {
    const whole = { chat: CHAT, completion: COMPLETION, tokenize: {} }[endpoint];
    expect(() => parseBody(SCHEMAS[endpoint] as typeof ChatBody, { ...whole, ...fields })).toThrow(
      expect.objectContaining({ message }),
    );
  });

  it.each([
    ['prompt', Array(500_000).fill({})],
    ['prompt', Array(500_000).fill([])],
    ['logit_bias', Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`x${i}`, 1]))],
  ])('many wrong items of %s are one refusal', (field, value) => {
    const { error } = CompletionBody.safeParse({ ...COMPLETION, [field]: value });
    expect(error?.issues).toHaveLength(1);
  });
});

describe('half a pair of surrogates', () => {
  it.each<[string, typeof ChatBody | typeof CompletionBody, object]>([
    ['of a prompt', CompletionBody, { ...COMPLETION, prompt: 'a\ud800' }],
    ['of one of several prompts', CompletionBody, { ...COMPLETION, prompt: ['a\ud800'] }],
    ['of a stop string', CompletionBody, { ...COMPLETION, stop: 'a\ud800' }],
    ['of a message', ChatBody, { ...CHAT, messages: [{ role: 'user', content: 'a\udc00' }] }],
    [
      'of a part',
      ChatBody,
      { ...CHAT, messages: [{ role: 'user', content: [{ type: 'text', text: '\udc00' }] }] },
    ],
    ['of the model', ChatBody, { ...CHAT, model: 'm\ud800' }],
    ['of a template variable', ChatBody, { ...CHAT, chat_template_kwargs: { name: '\ud800' } }],
  ])('%s becomes U+FFFD', (_, schema, body) => {
    const parsed = JSON.stringify(schema.parse(body));
    expect(parsed).toContain('\ufffd');
    expect(parsed).not.toContain('\\ud');
  });

  it('of a key becomes U+FFFD in the refusal', () => {
    const body = { ...CHAT, logit_bias: { '\ud800': 1 } };
    expect(() => parseBody(ChatBody, body)).toThrow('logit_bias.\ufffd: Expected a token id as the key');
  });
});
