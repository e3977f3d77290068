import { isObject, type Json } from './files.ts';
import { type AddedToken, type TokenizerFiles, type TokenizerJson, vocabularyOf } from './tokenizer-files.ts';

/** Special tokens by their roles: bos_token, eos_token and what else the files name `…_token`. */
export type SpecialTokens = Record<string, string>;

interface TokenizerClass {
  /** What this class of transformers takes where no file names a token. */
  defaults: SpecialTokens;
  /** Whether it puts BOS and EOS itself, by add_bos_token and add_eos_token, whatever tokenizer.json says. */
  placesEnds: boolean;
}

const PLAIN: TokenizerClass = { defaults: {}, placesEnds: false };
const LLAMA: TokenizerClass = {
  defaults: { bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>' },
  placesEnds: true,
};
const GEMMA: TokenizerClass = {
  defaults: { bos_token: '<bos>', eos_token: '<eos>', unk_token: '<unk>', pad_token: '<pad>' },
  placesEnds: true,
};
const QWEN2: TokenizerClass = {
  defaults: { eos_token: '<|endoftext|>', unk_token: '<|endoftext|>', pad_token: '<|endoftext|>' },
  placesEnds: false,
};

const CLASSES: Record<string, TokenizerClass> = {
  LlamaTokenizer: LLAMA,
  CodeLlamaTokenizer: LLAMA,
  GemmaTokenizer: GEMMA,
  Qwen2Tokenizer: QWEN2,
};

const CLASS_OF_MODEL: Record<string, TokenizerClass> = {
  llama: LLAMA,
  mistral: LLAMA,
  gemma: GEMMA,
  gemma2: GEMMA,
  gemma3_text: GEMMA,
  qwen2: QWEN2,
  qwen3: QWEN2,
};

export interface ResolvedTokenizer {
  /** tokenizer.json as transformers changes it by what stands in the other files. */
  tokenizer: TokenizerJson;
  specialTokens: SpecialTokens;
}

/** Puts the files together with the precedence of transformers 4, which vLLM and most published scores were made with. */
export function resolveTokenizer(files: TokenizerFiles): ResolvedTokenizer {
  const { tokenizer, config } = files;
  const tokenizerClass = classOf(files);
  const ids = new Map([
    ...vocabularyOf(tokenizer),
    ...tokenizer.added_tokens.map(({ content, id }) => [content, id] as const),
    ...declaredTokens(files).map(({ content, id }) => [content, id] as const),
  ]);
  const named = withoutNulls({ ...defaultsIn(ids, tokenizerClass), ...namedTokens(files) });
  const resolved: TokenizerJson = { ...tokenizer, added_tokens: addedTokens(files, named, ids) };
  if (tokenizerClass.placesEnds) {
    const bos = ends(config.add_bos_token ?? true, named.bos_token, ids);
    const eos = ends(config.add_eos_token ?? false, named.eos_token, ids);
    if (bos !== 'unknown' && eos !== 'unknown') resolved.post_processor = postProcessor(bos, eos);
  }
  if (isObject(resolved.pre_tokenizer) && 'add_prefix_space' in resolved.pre_tokenizer) {
    const add_prefix_space = config.add_prefix_space === true;
    resolved.pre_tokenizer = { ...resolved.pre_tokenizer, add_prefix_space };
  }
  return { tokenizer: resolved, specialTokens: named };
}

function classOf({ config, model }: TokenizerFiles): TokenizerClass {
  const name = config.tokenizer_class ?? model.tokenizer_class;
  if (typeof name === 'string') return CLASSES[name.replace(/Fast$/, '')] ?? PLAIN;
  return CLASS_OF_MODEL[String(model.model_type)] ?? PLAIN;
}

/** A default that the vocabulary lacks is not taken: transformers would give it an id that the model has no row for. */
function defaultsIn(ids: Map<string, number>, { defaults }: TokenizerClass): SpecialTokens {
  return Object.fromEntries(Object.entries(defaults).filter(([, token]) => ids.has(token)));
}

/** Null where a file says that there is none. special_tokens_map.json counts only where it is not superseded. */
function namedTokens({ config, specialTokensMap }: TokenizerFiles): Record<string, string | null> {
  const superseded = 'added_tokens_decoder' in config;
  const extra = isObject(config.extra_special_tokens) ? config.extra_special_tokens : {};
  const all: Json = { ...config, ...extra, ...(superseded ? {} : specialTokensMap) };
  const named: Record<string, string | null> = {};
  for (const [role, value] of Object.entries(all)) {
    if (!role.endsWith('_token')) continue;
    const content = contentOf(value);
    if (content !== undefined) named[role] = content;
  }
  return named;
}

function withoutNulls(tokens: Record<string, string | null>): SpecialTokens {
  return Object.fromEntries(
    Object.entries(tokens).filter((entry): entry is [string, string] => entry[1] !== null),
  );
}

function contentOf(value: unknown): string | null | undefined {
  const content = isObject(value) ? value.content : value;
  return typeof content === 'string' || content === null ? content : undefined;
}

/** The tokens that other files than tokenizer.json give ids to. */
function declaredTokens({ config, addedTokens }: TokenizerFiles): AddedToken[] {
  if (isObject(config.added_tokens_decoder)) {
    return Object.entries(config.added_tokens_decoder as Record<string, Omit<AddedToken, 'id'>>).map(
      ([id, token]) => ({ ...token, id: Number(id) }),
    );
  }
  return Object.entries(addedTokens as Record<string, number>).map(([content, id]) => ({ id, content }));
}

function addedTokens(files: TokenizerFiles, named: SpecialTokens, ids: Map<string, number>): AddedToken[] {
  const { config, specialTokensMap, tokenizer } = files;
  const lists = [
    config.additional_special_tokens,
    config.extra_special_tokens,
    specialTokensMap.additional_special_tokens,
  ];
  const special = new Set([
    ...Object.values(named),
    ...lists.flatMap((list) => (Array.isArray(list) ? list.map(contentOf) : [])),
  ]);
  const all = new Map(tokenizer.added_tokens.map((token) => [token.content, token]));
  for (const token of declaredTokens(files)) {
    if (!all.has(token.content))
      all.set(token.content, { ...token, special: token.special === true || special.has(token.content) });
  }
  for (const content of special) {
    const id = typeof content === 'string' ? ids.get(content) : undefined;
    if (typeof content === 'string' && id !== undefined && !all.has(content))
      all.set(content, { id, content, special: true });
  }
  return [...all.values()];
}

interface End {
  token: string;
  id: number;
}

/** `unknown`: the files ask for a token that has no id, so tokenizer.json's own rule is the best there is. */
function ends(wanted: unknown, token: string | undefined, ids: Map<string, number>): End | null | 'unknown' {
  if (wanted !== true) return null;
  const id = token === undefined ? undefined : ids.get(token);
  return token === undefined || id === undefined ? 'unknown' : { token, id };
}

function postProcessor(bos: End | null, eos: End | null): Json {
  const place = (end: End | null) => (end === null ? [] : [{ SpecialToken: { id: end.token, type_id: 0 } }]);
  const one = (sequence: string) => [
    ...place(bos),
    { Sequence: { id: sequence, type_id: 0 } },
    ...place(eos),
  ];
  const special = [bos, eos].filter((end) => end !== null);
  return {
    type: 'TemplateProcessing',
    single: one('A'),
    pair: [...one('A'), ...one('B')],
    special_tokens: Object.fromEntries(
      special.map(({ token, id }) => [token, { id: token, ids: [id], tokens: [token] }]),
    ),
  };
}
