import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ParrotServer, startParrot } from '../../support/parrot-server.ts';

/** What a request may hold the event loop for, as a multiple of what JSON.parse of the same bytes takes. */
const STALL_RATIO_MAX = 10;
/** Small bodies are not held to microseconds, nor to what the machine's other work costs. */
const STALL_MS_FLOOR = 200;
const TRIES_MAX = 5;
const BYTES = 8_000_000;

let server: ParrotServer;
beforeAll(async () => {
  server = await startParrot();
});
afterAll(() => server.close());

function parseMs(text: string): number {
  const once = () => {
    const startMs = performance.now();
    JSON.parse(text);
    return performance.now() - startMs;
  };
  return Math.min(once(), once(), once());
}

async function stallMs(act: () => Promise<unknown>): Promise<number> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  await nextTurn();
  delay.enable();
  await act();
  await nextTurn();
  delay.disable();
  return delay.max / 1e6;
}

/** As many of `item` as fit in a body. */
const many = (item: string) =>
  Array(Math.floor((BYTES - 1000) / (item.length + 1)))
    .fill(item)
    .join(',');
/** As many entries as fit, each with a key of its own. */
const entries = (keyOf: (index: number) => string, value: string) => {
  const size = keyOf(999_999).length + value.length + 4;
  return Array.from(
    { length: Math.floor((BYTES - 1000) / size) },
    (_, index) => `"${keyOf(index)}":${value}`,
  ).join(',');
};
const letters = (index: number) =>
  index
    .toString(36)
    .replace(/\d/g, (digit) => 'ABCDEFGHIJ'[Number(digit)] ?? '')
    .toLowerCase();
const rowsOf = (rows: number, row: string) => Array(rows).fill(row).join(',');

type Row = [name: string, path: string, field: string, value: () => string];
const COMPLETIONS = '/v1/completions';
const CHAT = '/v1/chat/completions';

const HOSTILE: Row[] = [
  ['maps as prompts', COMPLETIONS, 'prompt', () => `[${many('{}')}]`],
  ['lists as prompts', COMPLETIONS, 'prompt', () => `[${many('[]')}]`],
  ['texts as tokens', COMPLETIONS, 'prompt', () => `[[${many('"a"')}]]`],
  ['texts after a token', COMPLETIONS, 'prompt', () => `[1,${many('"a"')}]`],
  ['tokens', COMPLETIONS, 'prompt', () => `[${many('1')}]`],
  ['tokens with one that is none', COMPLETIONS, 'prompt', () => `[${many('1')},-1]`],
  ['128 lists of tokens', COMPLETIONS, 'prompt', () => `[${rowsOf(128, `[${rowsOf(31_000, '1')}]`)}]`],
  ['texts as prompts', COMPLETIONS, 'prompt', () => `[${many('""')}]`],
  ['a deep prompt', COMPLETIONS, 'prompt', () => '['.repeat(BYTES / 2 - 1000) + ']'.repeat(BYTES / 2 - 1000)],
  ['one long prompt', COMPLETIONS, 'prompt', () => `"${'a'.repeat(BYTES - 1000)}"`],
  ['stop strings', COMPLETIONS, 'stop', () => `[${many('"a"')}]`],
  ['maps as stop strings', COMPLETIONS, 'stop', () => `[${many('{}')}]`],
  ['stop tokens', COMPLETIONS, 'stop_token_ids', () => `[${many('"a"')}]`],
  ['biases on tokens', COMPLETIONS, 'logit_bias', () => `{${entries(String, '1')}}`],
  ['biases on no tokens', COMPLETIONS, 'logit_bias', () => `{${entries((index) => `x${index}`, '1')}}`],
  ['keys of lora', COMPLETIONS, 'lora', () => `{${entries(letters, '1')}}`],
  ['keys of stream_options', COMPLETIONS, 'stream_options', () => `{${entries(letters, '1')}}`],
  ['fields that nobody knows', COMPLETIONS, 'metadata', () => `{${entries(letters, '{}')}}`],
  ['a prototype behind much else', COMPLETIONS, 'metadata', () => `[${many('{}')},{"__proto__":1}]`],
  ['messages', CHAT, 'messages', () => `[${many('{"role":"user","content":""}')}]`],
  ['no messages', CHAT, 'messages', () => `[${many('1')}]`],
  ['parts', CHAT, 'messages', () => `[{"role":"user","content":[${many('{}')}]}]`],
  [
    'parts in many messages',
    CHAT,
    'messages',
    () => `[${rowsOf(4000, `{"role":"user","content":[${rowsOf(600, '{}')}]}`)}]`,
  ],
  [
    'as many wrong parts as may be',
    CHAT,
    'messages',
    () => `[${rowsOf(15, `{"role":"user","content":[${rowsOf(1024, '{"type":1}')}]}`)}]`,
  ],
  [
    'as many messages as may be',
    CHAT,
    'messages',
    () => `[${rowsOf(4096, '{"role":"user","content":"a"}')}]`,
  ],
  [
    'a message of special tokens',
    CHAT,
    'messages',
    () => `[{"role":"user","content":"${'<|eot_id|>'.repeat(BYTES / 10 - 100)}"}]`,
  ],
  ['template variables', CHAT, 'chat_template_kwargs', () => `{${entries(letters, '1')}}`],
  ['wrong template variables', CHAT, 'chat_template_kwargs', () => `{${entries(String, '{}')}}`],
  [
    'a deep template variable',
    CHAT,
    'chat_template_kwargs',
    () => `{"a":${'['.repeat(1e6)}${']'.repeat(1e6)}}`,
  ],
  ['tools', CHAT, 'tools', () => `[${many('{}')}]`],
  ['a deep tool', CHAT, 'tools', () => '['.repeat(1e6) + ']'.repeat(1e6)],
  ['documents', CHAT, 'documents', () => `{${entries(letters, '1')}}`],
  ['modalities', CHAT, 'modalities', () => `[${many('"text"')}]`],
  ['messages to tokenize', '/tokenize', 'messages', () => `[${many('1')}]`],
  ['a list to tokenize', '/tokenize', 'prompt', () => `[${many('{}')}]`],
  ['one long text to tokenize', '/tokenize', 'prompt', () => `"${'€'.repeat(BYTES / 3 - 1000)}"`],
  ['template variables to tokenize', '/tokenize', 'chat_template_kwargs', () => `{${entries(letters, '1')}}`],
  ['texts to detokenize', '/detokenize', 'tokens', () => `[${many('"a"')}]`],
  ['lists to detokenize', '/detokenize', 'tokens', () => `[${many('[]')}]`],
  ['tokens to detokenize', '/detokenize', 'tokens', () => `[${many('1')}]`],
];

const REST: Record<string, object> = {
  [COMPLETIONS]: { model: 'parrot', prompt: [7], max_tokens: 1 },
  [CHAT]: { model: 'parrot', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1 },
  '/tokenize': {},
  '/detokenize': {},
};

describe('a body of 8 MB does not stop the event loop with', () => {
  it.each(HOSTILE)('%s (%s)', async (_, path, field, value) => {
    const { [field]: _replaced, ...rest } = REST[path] as Record<string, unknown>;
    const text = `{${JSON.stringify(rest).slice(1, -1)}${Object.keys(rest).length > 0 ? ',' : ''}"${field}":${value()}}`;
    expect(text.length).toBeLessThan(8 << 20);
    let shortestMs = Number.POSITIVE_INFINITY;
    for (let attempt = 0; attempt < TRIES_MAX && shortestMs > STALL_MS_FLOOR; attempt += 1) {
      shortestMs = Math.min(shortestMs, await stallMs(() => server.post(path, text)));
    }
    if (shortestMs <= STALL_MS_FLOOR) return;
    expect(shortestMs).toBeLessThan(STALL_RATIO_MAX * parseMs(text));
  });
});
