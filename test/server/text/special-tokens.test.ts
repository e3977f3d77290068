import { describe, expect, it } from 'vitest';
import { resolveTokenizer } from '../../../server/text/special-tokens.ts';
import { Tokenizer } from '../../../server/text/tokenizer.ts';
import type { AddedToken, TokenizerFiles } from '../../../server/text/tokenizer-files.ts';

const special = (id: number, content: string): AddedToken => ({ id, content, special: true });

/** One token per letter a to c; <s> and </s> are special, <x> is a word like any other. */
function files(changes: Partial<TokenizerFiles>, tokenizer: object = {}): TokenizerFiles {
  return {
    tokenizer: {
      added_tokens: [special(0, '<s>'), special(1, '</s>')],
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder: null,
      model: { type: 'BPE', vocab: { '<s>': 0, '</s>': 1, a: 2, b: 3, c: 4, '<x>': 5 }, merges: [] },
      ...tokenizer,
    },
    config: {},
    specialTokensMap: {},
    addedTokens: {},
    model: {},
    ...changes,
  };
}

const encode = (text: string, changes: Partial<TokenizerFiles>, tokenizer: object = {}) =>
  new Tokenizer(files(changes, tokenizer)).encode(text, { addSpecial: true });

const BOS_BY_TOKENIZER_JSON = {
  post_processor: {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [],
    special_tokens: { '<s>': { id: '<s>', ids: [0], tokens: ['<s>'] } },
  },
};
const NAMED = { bos_token: '<s>', eos_token: '</s>' };

describe('the ends of a text', () => {
  it.each<[string, object, number[]]>([
    ['a class that places them', { tokenizer_class: 'LlamaTokenizerFast' }, [0, 2]],
    ['the same with add_bos_token', { tokenizer_class: 'LlamaTokenizer', add_bos_token: true }, [0, 2]],
    ['the same without', { tokenizer_class: 'LlamaTokenizer', add_bos_token: false }, [2]],
    ['the same with both', { tokenizer_class: 'LlamaTokenizer', add_eos_token: true }, [0, 2, 1]],
    ['a class that does not', { tokenizer_class: 'PreTrainedTokenizerFast', add_bos_token: true }, [2]],
  ])('come from %s', (_what, config, ids) => {
    expect(encode('a', { config: { ...NAMED, ...config } })).toEqual(ids);
  });

  it('come from tokenizer.json where the class does not place them', () => {
    expect(encode('a', { config: { add_bos_token: false } }, BOS_BY_TOKENIZER_JSON)).toEqual([0, 2]);
  });

  it('are taken away by the class that places them', () => {
    const config = { ...NAMED, tokenizer_class: 'LlamaTokenizerFast', add_bos_token: false };
    expect(encode('a', { config }, BOS_BY_TOKENIZER_JSON)).toEqual([2]);
  });

  it('are of the class that config.json means where nothing else names one', () => {
    expect(encode('a', { model: { model_type: 'mistral' } })).toEqual([0, 2]);
    expect(encode('a', { model: { model_type: 'qwen2' } })).toEqual([2]);
    expect(encode('a', { model: { model_type: 'qwen2', tokenizer_class: 'LlamaTokenizer' } })).toEqual([
      0, 2,
    ]);
  });

  it('are left to tokenizer.json where the vocabulary lacks the token', () => {
    const config = { tokenizer_class: 'LlamaTokenizer', bos_token: '<none>' };
    expect(encode('a', { config }, BOS_BY_TOKENIZER_JSON)).toEqual([0, 2]);
  });
});

describe('special tokens', () => {
  const bosOf = (changes: Partial<TokenizerFiles>) =>
    resolveTokenizer(files(changes)).specialTokens.bos_token;

  it.each<[string, Partial<TokenizerFiles>, string | undefined]>([
    ['tokenizer_config.json', { config: { bos_token: '<s>' } }, '<s>'],
    ['tokenizer_config.json as an object', { config: { bos_token: { content: '<s>' } } }, '<s>'],
    ['special_tokens_map.json', { specialTokensMap: { bos_token: { content: '<s>' } } }, '<s>'],
    [
      'special_tokens_map.json before tokenizer_config.json',
      { config: { bos_token: 'a' }, specialTokensMap: { bos_token: '<s>' } },
      '<s>',
    ],
    [
      'tokenizer_config.json alone where it has added_tokens_decoder',
      { config: { bos_token: 'a', added_tokens_decoder: {} }, specialTokensMap: { bos_token: '<s>' } },
      'a',
    ],
    ["the class's default", { config: { tokenizer_class: 'LlamaTokenizer' } }, '<s>'],
    [
      'nowhere, where null is written',
      { config: { tokenizer_class: 'LlamaTokenizer', bos_token: null } },
      undefined,
    ],
    [
      'nowhere, where the vocabulary lacks the default',
      { config: { tokenizer_class: 'GemmaTokenizer' } },
      undefined,
    ],
  ])('come from %s', (_what, changes, bos) => {
    expect(bosOf(changes)).toBe(bos);
  });

  it.each<[string, Partial<TokenizerFiles>]>([
    ['added_tokens_decoder', { config: { added_tokens_decoder: { 5: { content: '<x>', special: true } } } }],
    ['added_tokens.json', { addedTokens: { '<x>': 5 } }],
    ['a role', { config: { pad_token: '<x>' } }],
    ['additional_special_tokens', { config: { additional_special_tokens: ['<x>'] } }],
    ['the map', { specialTokensMap: { additional_special_tokens: [{ content: '<x>' }] } }],
  ])('of %s are found in text', (_what, changes) => {
    expect(encode('a<x>b', changes)).toEqual([2, 5, 3]);
  });

  it('name the end token', () => {
    expect(new Tokenizer(files({ config: NAMED })).eosTokenId).toBe(1);
    expect(new Tokenizer(files({})).eosTokenId).toBeNull();
  });
});
