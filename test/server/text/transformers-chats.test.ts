import { readdirSync, readFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type ChatMessage, ChatTemplate, ChatTemplateError } from '../../../server/text/chat-template.ts';
import type { Json } from '../../../server/text/files.ts';
import { Tokenizer } from '../../../server/text/tokenizer.ts';
import type { TokenizerJson } from '../../../server/text/tokenizer-files.ts';

const FIXTURES = resolve(import.meta.dirname, '../../fixtures');
const RECORDED = resolve(FIXTURES, 'transformers');
const read = (path: string) => readFileSync(path, 'utf8');

interface Conversation {
  messages: ChatMessage[];
  add_generation_prompt?: boolean;
  tools?: boolean;
  variables?: Record<string, boolean>;
}
interface Outcome {
  text?: string;
  ids?: string;
  error?: string;
}
interface Recording {
  tokenizerConfig: Json;
  chats: Record<string, Record<string, Outcome>>;
}

const { tokenizerConfig, chats }: Recording = JSON.parse(read(resolve(RECORDED, 'chats.json')));
const conversations: Record<string, Conversation> = JSON.parse(read(resolve(RECORDED, 'conversations.json')));
const tools: unknown[] = JSON.parse(read(resolve(RECORDED, 'tools.json')));
const tokenizer = new Tokenizer({
  tokenizer: JSON.parse(read(resolve(FIXTURES, 'parrot/tokenizer.json'))) as TokenizerJson,
  config: tokenizerConfig,
  specialTokensMap: {},
  addedTokens: {},
  model: {},
});

/** Kinds of turns that these families' templates leave out without a word, in transformers too. */
const LEFT_OUT: Record<string, string[]> = {
  calls: [
    'alpaca',
    'chatml',
    'deepseek-r1',
    'deepseek-v2',
    'exaone',
    'granite3',
    'llama3',
    'mistral-v3',
    'openchat',
    'phi3-small',
    'phi3',
    'phi4-mini',
    'phi4',
    'qwen1.5',
    'smollm2',
    'smollm3',
    'yi',
    'zephyr',
  ],
  developer: ['deepseek-r1', 'deepseek-v2', 'phi3', 'phi4', 'qwen2.5', 'qwen3', 'smollm3', 'yi', 'zephyr'],
  'later system': ['smollm3', 'yi'],
  'lone system': ['gemma3', 'llama2', 'mistral-v3'],
  'thoughts in an answer': ['deepseek-r1', 'qwen3'],
  tool: ['deepseek-v2', 'llama2', 'phi3', 'phi4', 'yi', 'zephyr'],
};

function render(name: string, conversation: Conversation): string {
  const template = new ChatTemplate(
    read(resolve(RECORDED, `templates/${name}.jinja`)),
    tokenizer.specialTokens,
  );
  return template.render(conversation.messages, {
    addGenerationPrompt: conversation.add_generation_prompt ?? true,
    variables: conversation.variables ?? {},
    tools: conversation.tools === true ? tools : null,
  });
}

/** The words by which a turn is known again; thoughts beside an answer are not for every template. */
const WORDS = /\b(?:alpha|bravo|charlie|delta|echo|foxtrot|golf)\b/gi;
const wordsIn = (value: unknown): string[] =>
  JSON.stringify(value)
    .replaceAll(/\\[nt]/g, ' ')
    .toLowerCase()
    .match(WORDS) ?? [];

it('every template is recorded', () => {
  const files = readdirSync(resolve(RECORDED, 'templates')).map((file) => basename(file, '.jinja'));
  expect(Object.keys(chats).toSorted()).toEqual(files.toSorted());
});

describe.each(Object.entries(chats))('%s', (name, outcomes) => {
  const recorded = Object.entries(outcomes).map(([title, outcome]) => {
    return { title, outcome, conversation: conversations[title] as Conversation };
  });
  const accepted = recorded.filter(({ outcome }) => outcome.error === undefined);
  const refused = recorded.filter(({ outcome }) => outcome.error !== undefined);

  it.each(accepted)('writes $title as transformers does', ({ conversation, outcome }) => {
    const text = render(name, conversation);
    expect(text).toBe(outcome.text);
    expect(tokenizer.encode(text, { addSpecial: false }).join(' ')).toBe(outcome.ids);
  });

  it.runIf(refused.length > 0).each(refused)(
    'refuses $title as transformers does',
    ({ conversation, outcome }) => {
      expect(() => render(name, conversation)).toThrow(new ChatTemplateError(outcome.error));
    },
  );
});

function kindOf(message: ChatMessage, index: number, all: ChatMessage[]): string {
  if (message.tool_calls !== undefined) return 'calls';
  if (message.content?.includes('<think>')) return 'thoughts in an answer';
  if (message.role !== 'system') return message.role;
  if (index > 0) return 'later system';
  return all.length === 1 ? 'lone system' : 'system';
}

function leftOutBy(name: string, { messages, ...options }: Conversation): string[] {
  const ids = tokenizer.encode(render(name, { messages, ...options }), { addSpecial: false });
  const said = new Set(wordsIn(tokenizer.decode(ids, { skipSpecial: false })));
  return messages.flatMap((message, index) =>
    wordsIn([message.content, message.tool_calls ?? null]).every((word) => said.has(word))
      ? []
      : [kindOf(message, index, messages)],
  );
}

it('every turn that a template takes reaches the tokens, but for these kinds', () => {
  const found: Record<string, Set<string>> = {};
  for (const [name, outcomes] of Object.entries(chats)) {
    for (const [title, { error }] of Object.entries(outcomes)) {
      if (error !== undefined) continue;
      for (const kind of leftOutBy(name, conversations[title] as Conversation)) {
        found[kind] ??= new Set();
        found[kind].add(name);
      }
    }
  }
  expect(Object.fromEntries(Object.entries(found).map(([kind, names]) => [kind, [...names]]))).toEqual(
    LEFT_OUT,
  );
});
