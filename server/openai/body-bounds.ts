import { type Bound, type Bounds, PLAIN, tree } from './bounds.ts';
import { CHOICES_MAX } from './schemas.ts';

/** As deep as the JSON schemas of real tools, with room. */
const TREE = tree(24);

const TEMPLATE_VARIABLES: Bound = { map: { keysMax: 64, of: tree(8) } };

const PART: Bound = { map: { keysMax: 16, of: tree(4) } };
const MESSAGE: Bound = {
  map: { keysMax: 32, fields: { content: { list: { itemsMax: 1024, of: PART }, ...PART } }, of: TREE },
};
const MESSAGES: Bound = { list: { itemsMax: 4096, of: MESSAGE } };

const EITHER: Bounds = {
  stop: { list: { itemsMax: 64, of: PLAIN } },
  stop_token_ids: { list: { itemsMax: 64, of: PLAIN } },
  logit_bias: { map: { keysMax: 1024, of: PLAIN } },
  stream_options: { map: { keysMax: 16, of: PLAIN } },
  lora: { map: { keysMax: 16, of: PLAIN } },
};

/** What each route takes; schemas.ts judges what is in it. */
export const COMPLETION_BOUNDS: Bounds = {
  ...EITHER,
  prompt: { list: { itemsMax: CHOICES_MAX, of: { tokens: true } }, tokens: true },
};

export const CHAT_BOUNDS: Bounds = {
  ...EITHER,
  messages: MESSAGES,
  chat_template_kwargs: TEMPLATE_VARIABLES,
  tools: TREE,
  functions: TREE,
  documents: TREE,
  response_format: TREE,
};

export const TOKENIZE_BOUNDS: Bounds = {
  messages: MESSAGES,
  chat_template_kwargs: TEMPLATE_VARIABLES,
  tools: TREE,
};

export const DETOKENIZE_BOUNDS: Bounds = { tokens: { tokens: true } };
