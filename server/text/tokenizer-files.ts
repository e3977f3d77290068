import { isObject, type Json, readJsonIfThere } from './files.ts';

export interface AddedToken {
  id: number;
  content: string;
  special?: boolean;
  lstrip?: boolean;
  rstrip?: boolean;
  single_word?: boolean;
  normalized?: boolean;
}

/** What is used here of tokenizer.json; the rest goes to the tokenizer as it is. */
export interface TokenizerJson extends Json {
  added_tokens: AddedToken[];
  decoder?: unknown;
  model?: unknown;
  post_processor?: unknown;
  pre_tokenizer?: unknown;
}

/** The files of a model's folder that say how its tokenizer works, empty where there is none. */
export interface TokenizerFiles {
  tokenizer: TokenizerJson;
  /** tokenizer_config.json */
  config: Json;
  /** special_tokens_map.json */
  specialTokensMap: Json;
  /** added_tokens.json: token to id */
  addedTokens: Json;
  /** config.json of the model: it names the tokenizer where tokenizer_config.json does not. */
  model: Json;
}

export async function readTokenizerFiles(dir: string): Promise<TokenizerFiles> {
  const read = async (name: string) => await readJsonIfThere(dir, name);
  const [tokenizer, config, specialTokensMap, addedTokens, model] = await Promise.all([
    read('tokenizer.json'),
    read('tokenizer_config.json'),
    read('special_tokens_map.json'),
    read('added_tokens.json'),
    read('config.json'),
  ]);
  return {
    tokenizer: { ...tokenizer, added_tokens: addedTokensOf(tokenizer) },
    config: config ?? {},
    specialTokensMap: specialTokensMap ?? {},
    addedTokens: addedTokens ?? {},
    model: model ?? {},
  };
}

function addedTokensOf(tokenizer: Json | null): AddedToken[] {
  return Array.isArray(tokenizer?.added_tokens) ? (tokenizer.added_tokens as AddedToken[]) : [];
}

/** Token to id, without added tokens. */
export function vocabularyOf({ model }: TokenizerJson): Map<string, number> {
  const vocab = isObject(model) ? model.vocab : null;
  // A Unigram model lists [token, score] in the order of ids.
  if (Array.isArray(vocab)) return new Map(vocab.map(([token], id) => [token as string, id]));
  return new Map(Object.entries(isObject(vocab) ? (vocab as Record<string, number>) : {}));
}
