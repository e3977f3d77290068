import { z } from 'zod';
import type { Expectation } from '../contract/expectation.ts';
import { EXPECT_WAIT_MS_MAX } from '../contract/headers.ts';
import { badRequest } from './errors.ts';
import { entriesOf, firstWrong, listOf, oneOf, optional, take, tokenList } from './fields.ts';

/** Choices of one request: prompts times n. */
export const CHOICES_MAX = 128;
export const LOGPROBS_MAX = 20;
export const LORA_SCALE_MAX = 16;
const SCORES_MAX = 8;
/** Of 15 digits, as in headers. */
const STEP_MAX = 10 ** 15 - 1;
const STOP_CHARACTERS_MAX = 16_000;

const integer = (min: number, max: number) => z.number().int().min(min).max(max);

function isWhole(value: unknown): value is number | bigint {
  return typeof value === 'bigint' || Number.isInteger(value);
}

/** Half a pair of surrogates can neither be tokenized nor answered in UTF-8: it becomes U+FFFD. */
const text = (min: number, max = Number.POSITIVE_INFINITY) =>
  z
    .string()
    .min(min)
    .max(max)
    .transform((value) => value.toWellFormed());

const Text = text(0);
const Stop = text(1, 1000);

/** Many or long ones, not both: each token's text is searched for all of them. */
const Stops = listOf('stop strings', Stop, { max: 64 }).refine(
  (stops) => stops.reduce((sum, { length }) => sum + length, 0) <= STOP_CHARACTERS_MAX,
  { error: `Expected at most ${STOP_CHARACTERS_MAX} characters in all stop strings` },
);

/** Signed or not, as clients write 64 bits. */
const Seed = z
  .custom<number | bigint>((value) => isWhole(value) && value >= -(2n ** 63n) && value < 2n ** 64n, {
    error: 'Expected a whole number of 64 bits',
  })
  .transform(BigInt);

/** One of the two. */
const Expect = z
  .strictObject({
    revision: optional(
      z.string().regex(/^(?:sha256:)?[0-9a-f]{6,64}$/, 'Expected at least 6 hexadecimal digits of a digest'),
      null,
    ),
    min_step: optional(integer(0, STEP_MAX), null),
  })
  .transform(({ revision, min_step }, context): Expectation => {
    if (revision !== null && min_step === null)
      return { kind: 'revision', prefix: revision.replace('sha256:', '') };
    if (revision === null && min_step !== null) return { kind: 'min_step', step: min_step };
    context.addIssue({ code: 'custom', message: 'Expected either revision or min_step' });
    return z.NEVER;
  });

const Lora = z.strictObject({
  scale: optional(z.number().min(0).max(LORA_SCALE_MAX), 1),
  expect: optional(Expect, null),
  wait_ms: optional(integer(0, EXPECT_WAIT_MS_MAX), null),
  policy: optional(z.enum(['pin', 'latest']), null),
  base_logprobs: optional(z.boolean(), false),
  score_under: optional(listOf('names of models', text(1, 512), { max: SCORES_MAX }), []),
});
export type LoraFields = z.output<typeof Lora>;
export const LoraField = optional(Lora, Lora.parse({}));

const Either = {
  model: text(1, 512),
  stream: optional(z.boolean(), false),
  stream_options: optional(
    z.object({
      include_usage: optional(z.boolean(), false),
      continuous_usage_stats: optional(z.boolean(), false),
    }),
    null,
  ),
  n: optional(integer(1, CHOICES_MAX), 1),
  max_tokens: optional(integer(0, 2 ** 31 - 1), null),
  stop: optional(
    oneOf('a text or a list of texts', (value) => {
      if (Array.isArray(value)) return Stops;
      return typeof value === 'string' ? Stop.transform((stop) => [stop]) : null;
    }),
    [],
  ),
  stop_token_ids: optional(tokenList({ max: 64 }), []),
  ignore_eos: optional(z.boolean(), false),
  include_stop_str_in_output: optional(z.boolean(), false),
  skip_special_tokens: optional(z.boolean(), true),
  temperature: optional(z.number().min(0).max(100), 1),
  top_p: optional(z.number().gt(0).max(1), 1),
  top_k: optional(integer(-1, 2 ** 31 - 1), 0),
  min_p: optional(z.number().min(0).max(1), 0),
  seed: optional(Seed, null),
  presence_penalty: optional(z.number().min(-2).max(2), 0),
  frequency_penalty: optional(z.number().min(-2).max(2), 0),
  repetition_penalty: optional(z.number().gt(0).max(100), 1),
  logit_bias: optional(
    entriesOf({ pattern: /^\d{1,9}$/, want: 'a token id', max: 1024 }, z.number().min(-100).max(100)),
    {},
  ),
  logprobs_mode: optional(z.enum(['raw', 'processed']), 'raw' as const),
  prompt_logprobs: optional(integer(0, LOGPROBS_MAX), null),
  return_token_ids: optional(z.boolean(), false),
  return_tokens_as_token_ids: optional(z.boolean(), false),
  cache_salt: optional(text(1, 1024), null),
  lora: LoraField,
};

const Prompts = { min: 1, max: CHOICES_MAX };
const Tokens = tokenList({ min: 1 });

/** A text, token ids, or several of either. */
const Prompt = oneOf<z.ZodType<string | number[] | string[] | number[][]>>(
  'a text, token ids, or a list of either',
  (value) => {
    if (typeof value === 'string') return Text;
    if (!Array.isArray(value)) return null;
    if (typeof value[0] === 'string') return listOf('prompts', Text, Prompts);
    return Array.isArray(value[0]) ? listOf('prompts', Tokens, Prompts) : Tokens;
  },
);

/** Chats say true or false, and so do clients that were written for them. */
const Logprobs = oneOf('a whole number', (value) =>
  typeof value === 'boolean'
    ? z.boolean().transform((wanted) => (wanted ? 1 : null))
    : integer(0, LOGPROBS_MAX),
);

export const CompletionBody = z.object({
  ...Either,
  prompt: Prompt,
  logprobs: optional(Logprobs, null),
  echo: optional(z.boolean(), false),
  add_special_tokens: optional(z.boolean(), true),
});
export type CompletionBody = z.output<typeof CompletionBody>;

const TextPart = z.object({ type: z.literal('text'), text: Text });

/** Text parts are joined by line breaks, as vLLM does, so that templates see one string. */
const Content = oneOf('a text or a list of text parts', (value) => {
  if (typeof value === 'string') return Text;
  if (!Array.isArray(value)) return null;
  return listOf('text parts', TextPart, { max: 1024 }).transform((parts) =>
    parts.map((part) => part.text).join('\n'),
  );
});

/** Other servers write empty lists and nulls into the turns that clients send back. */
const Nothing = z
  .unknown()
  .optional()
  .refine((value) => value == null || (Array.isArray(value) && value.length === 0), {
    error: 'is not supported',
  });

const Message = z
  .object({
    role: z.enum(['system', 'developer', 'user', 'assistant']),
    content: z.unknown().optional(),
    tool_calls: Nothing,
    function_call: Nothing,
    audio: Nothing,
  })
  .transform(({ role, content }, context) => ({
    role,
    content: role === 'assistant' && content == null ? '' : take(Content, content, context, ['content']),
  }));

export const Messages = listOf('messages', Message, { min: 1, max: 4096 });

const Variable = oneOf('a text, a number or true or false', (value) => {
  if (typeof value === 'string') return text(0, 4096);
  return typeof value === 'number' ? z.number() : typeof value === 'boolean' ? z.boolean() : null;
});
const TemplateVariables = entriesOf(
  { pattern: /^[a-z_]{1,64}$/, want: 'a name of a-z and _', max: 64 },
  Variable,
);

export const ChatBody = z.object({
  ...Either,
  messages: Messages,
  max_completion_tokens: optional(integer(0, 2 ** 31 - 1), null),
  logprobs: optional(z.boolean(), false),
  top_logprobs: optional(integer(0, LOGPROBS_MAX), null),
  add_generation_prompt: optional(z.boolean(), true),
  chat_template_kwargs: optional(TemplateVariables, {}),
  reasoning_effort: optional(z.literal('none'), null),
});
export type ChatBody = z.output<typeof ChatBody>;

/** What the chat template sees: where the client wants no thinking, also the name that templates know that by. */
export function templateVariables({ chat_template_kwargs, reasoning_effort }: ChatBody) {
  return reasoning_effort === null
    ? chat_template_kwargs
    : { enable_thinking: false, ...chat_template_kwargs };
}

/** What both endpoints have. */
export type EitherBody = Omit<CompletionBody, 'prompt' | 'logprobs' | 'echo' | 'add_special_tokens'>;

export const TokenizeChatBody = z.object({
  model: optional(Text, null),
  messages: Messages,
  add_generation_prompt: optional(z.boolean(), true),
  chat_template_kwargs: optional(TemplateVariables, {}),
  return_token_strs: optional(z.boolean(), false),
});
export const TokenizeTextBody = z.object({
  model: optional(Text, null),
  prompt: Text,
  add_special_tokens: optional(z.boolean(), true),
  return_token_strs: optional(z.boolean(), false),
});

export const TokenizeBody = oneOf<typeof TokenizeChatBody | typeof TokenizeTextBody>(
  'an object with prompt or messages',
  (value) => {
    if (typeof value !== 'object' || value === null) return null;
    return 'messages' in value ? TokenizeChatBody : TokenizeTextBody;
  },
);

export const DetokenizeBody = z.object({ model: optional(Text, null), tokens: tokenList() });

/** Refuses by the name of the first field that is wrong. */
export function parseBody<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const { message, path } = firstWrong(result.error);
  const param = path.join('.');
  throw badRequest(param === '' ? message : `${param}: ${message}`, param === '' ? undefined : param);
}

export function requireStreamable(
  body: Pick<EitherBody, 'stream' | 'stream_options' | 'prompt_logprobs'>,
): void {
  if (body.stream_options !== null && !body.stream) {
    throw badRequest('stream_options is for streamed requests only', 'stream_options');
  }
  if (body.stream && body.prompt_logprobs !== null) {
    throw badRequest('prompt_logprobs is not available in streamed requests', 'prompt_logprobs');
  }
}
