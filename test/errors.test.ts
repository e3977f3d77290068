import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, it } from 'vitest';
import { ENGINE_ERRORS } from '../native/types.ts';
import { ERRORS } from '../server/contract/errors.ts';
import { OPENAI_ERRORS } from '../server/openai/errors.ts';

const ROOT = resolve(import.meta.dirname, '..');

function textsUnder(folder: string, extension: RegExp): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && extension.test(entry.name))
    .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8'));
}

function found(texts: string[], pattern: RegExp): Set<string> {
  return new Set(texts.flatMap((text) => [...text.matchAll(pattern)].map(([, code = '']) => code)));
}

/** Quoted words that nothing is compared with: what is thrown is among them, in a call, a list or a choice. */
const said = (texts: string[]) => found(texts, /(?<!case |[=!]== |\| )'([a-z_]+)'/g);

const tables = [
  {
    name: "the contract's",
    codes: Object.keys(ERRORS),
    texts: [
      'server/contract',
      'server/adapters',
      'server/engine',
      'server/admin',
      'server/transfer',
      'operator',
    ].flatMap((folder) => textsUnder(folder, /\.ts$/)),
    thrown: /(?:new LorikeetError|\bexpected|notStrictJson)\(\s*'([a-z_]+)'/g,
  },
  {
    name: "the OpenAI API's",
    codes: Object.keys(OPENAI_ERRORS),
    texts: ['server/openai', 'server/vllm', 'server/bridge'].flatMap((folder) => textsUnder(folder, /\.ts$/)),
    thrown: /new OpenAiError\(\s*'([a-z_]+)'/g,
  },
];

it.each(tables)('$name codes are all thrown, and no others are', ({ codes, texts, thrown }) => {
  expect([...found(texts, thrown)].filter((code) => !codes.includes(code))).toEqual([]);
  const words = said(texts);
  expect(codes.filter((code) => !words.has(code))).toEqual([]);
});

it("the engine's codes are all thrown, and no others are", () => {
  const texts = textsUnder('native', /\.(?:cc|h)$/);
  const names = found(texts, /(?<![=!]= |size_t>\()ErrorCode::k(\w+)/g);
  const codes = [...names].map((name) => name.replace(/\B[A-Z]/g, '_$&').toLowerCase());
  expect(codes.sort()).toEqual([...ENGINE_ERRORS].sort());
});
