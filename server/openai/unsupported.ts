import { badRequest } from './errors.ts';

type Body = Record<string, unknown>;

/** True where the value asks for nothing that we lack. */
type Harmless = (value: unknown, body: Body) => boolean;

const absent = (value: unknown) => value === null || value === undefined;
const offOr =
  (...harmless: unknown[]) =>
  (value: unknown) =>
    absent(value) || harmless.includes(value);
const empty = (value: unknown) =>
  absent(value) ||
  value === '' ||
  (Array.isArray(value)
    ? value.length === 0
    : typeof value === 'object' && Object.keys(value as object).length === 0);
const plainText: Harmless = (value) => absent(value) || (value as { type?: unknown }).type === 'text';

/** Where nothing ends the answer before its longest, a least length asks for nothing. */
const reachedAnyway: Harmless = (least, body) => {
  if (offOr(0)(least)) return true;
  const most = body.max_completion_tokens ?? body.max_tokens;
  const runsOn = body.ignore_eos === true && empty(body.stop) && empty(body.stop_token_ids);
  return runsOn && typeof least === 'number' && least <= Number(most ?? 0);
};

/** Fields of OpenAI's and vLLM's APIs that would change the answer and are not built: refused, never ignored. */
const EITHER: Record<string, Harmless> = {
  allowed_token_ids: empty,
  bad_words: empty,
  best_of: offOr(1),
  guided_choice: absent,
  guided_grammar: absent,
  guided_json: absent,
  guided_regex: absent,
  kv_transfer_params: absent,
  length_penalty: offOr(1),
  logits_processors: empty,
  min_tokens: reachedAnyway,
  response_format: plainText,
  structured_outputs: absent,
  truncate_prompt_tokens: absent,
  use_beam_search: offOr(false),
  vllm_xargs: empty,
};

const COMPLETION: Record<string, Harmless> = { ...EITHER, prompt_embeds: absent, suffix: empty };

const CHAT: Record<string, Harmless> = {
  ...EITHER,
  add_special_tokens: offOr(false),
  audio: absent,
  chat_template: absent,
  continue_final_message: offOr(false),
  documents: empty,
  echo: offOr(false),
  function_call: offOr('none', 'auto'),
  functions: empty,
  modalities: (value) => absent(value) || (Array.isArray(value) && value.every((item) => item === 'text')),
  reasoning_effort: offOr('none'),
  tool_choice: offOr('none', 'auto'),
  tools: empty,
  web_search_options: absent,
};

const TOKENIZE: Record<string, Harmless> = {
  chat_template: absent,
  continue_final_message: offOr(false),
  mm_processor_kwargs: empty,
  tools: empty,
};

export const UNSUPPORTED = { completion: COMPLETION, chat: CHAT, tokenize: TOKENIZE };

/** Values of these, besides nothing, that ask for nothing that we lack; for the client to read. */
export const BUT: Record<string, string> = {
  best_of: '1',
  function_call: 'none, auto',
  length_penalty: '1',
  min_tokens: 'where nothing can end the answer earlier',
  modalities: 'text',
  reasoning_effort: 'none',
  response_format: 'text',
  tool_choice: 'none, auto',
};

/** Fields that we do not know at all are left alone: clients send many that change nothing. */
export function requireSupported(body: unknown, endpoint: keyof typeof UNSUPPORTED): void {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw badRequest('Expected a JSON object as the body');
  }
  for (const [field, isHarmless] of Object.entries(UNSUPPORTED[endpoint])) {
    if (Object.hasOwn(body, field) && !isHarmless((body as Body)[field], body as Body)) {
      const but = BUT[field] === undefined ? '' : `, but ${BUT[field]}`;
      throw badRequest(`${field} is not supported${but}`, field);
    }
  }
}
