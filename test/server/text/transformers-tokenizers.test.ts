import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Tokenizer } from '../../../server/text/tokenizer.ts';

const FIXTURES = resolve(import.meta.dirname, '../../fixtures');
const read = (path: string) => JSON.parse(readFileSync(join(FIXTURES, path), 'utf8'));

interface Variant {
  base: 'parrot' | 'sentence piece';
  /** Changes to tokenizer.json. */
  tokenizer?: object;
  files: Record<string, object>;
}
interface Recorded {
  specialTokens: Record<string, string>;
  /** Token ids with and without the ends of a text. */
  encoded: { text: string; ids: string; bare: string }[];
}

const variants: Record<string, Variant> = read('transformers/tokenizer-variants.json');
const recorded: { sentencePiece: object; variants: Record<string, Recorded> } = read(
  'transformers/tokenizers.json',
);
const bases = { parrot: read('parrot/tokenizer.json'), 'sentence piece': recorded.sentencePiece };

it('every variant is recorded', () => {
  expect(Object.keys(recorded.variants)).toEqual(Object.keys(variants));
});

describe.each(Object.entries(variants))('%s', (name, variant) => {
  const { specialTokens, encoded } = recorded.variants[name] as Recorded;
  let dir: string;
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
    const files = { 'tokenizer.json': { ...bases[variant.base], ...variant.tokenizer }, ...variant.files };
    for (const [file, content] of Object.entries(files))
      writeFileSync(join(dir, file), JSON.stringify(content));
    tokenizer = await Tokenizer.load(dir);
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  it.each(encoded)('gives $text the tokens that transformers gives it', ({ text, ids, bare }) => {
    expect(tokenizer.encode(text, { addSpecial: true }).join(' ')).toBe(ids);
    expect(tokenizer.encode(text, { addSpecial: false }).join(' ')).toBe(bare);
  });

  it('has the special tokens that transformers has, but for those that the vocabulary lacks', () => {
    const { model, added_tokens } = { ...bases[variant.base] } as {
      model: { vocab: object };
      added_tokens: { content: string }[];
    };
    const known = new Set([...Object.keys(model.vocab), ...added_tokens.map(({ content }) => content)]);
    const declared = JSON.stringify(variant.files);
    const wanted = Object.entries(specialTokens).filter(
      ([, token]) => known.has(token) || declared.includes(JSON.stringify(token)),
    );
    expect(tokenizer.specialTokens).toEqual(Object.fromEntries(wanted));
  });
});
