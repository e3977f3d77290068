import { z } from 'zod';
import { badRequest } from './errors.ts';

/** Choices of one request: prompts times n. */
export const CHOICES_MAX = 128;
export const LOGPROBS_MAX = 20;
export const LORA_SCALE_MAX = 16;

const integer = (min: number, max: number) => z.number().int().min(min).max(max);
const TokenId = integer(0, 2 ** 31 - 1);

/** Absent and null mean the same to OpenAI's clients. */
function optional<T extends z.ZodType, D>(schema: T, fallback: D) {
  return schema.nullish().transform((value): z.output<T> | D => value ?? fallback);
}

const Stop = z.string().min(1).max(1000);

const Either = {
  model: z.string().min(1).max(512),
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
  stop: z
    .union([Stop, z.array(Stop).max(16)])
    .nullish()
    .transform((value) => (value == null ? [] : [value].flat())),
  stop_token_ids: optional(z.array(TokenId).max(64), []),
  ignore_eos: optional(z.boolean(), false),
  include_stop_str_in_output: optional(z.boolean(), false),
  skip_special_tokens: optional(z.boolean(), true),
  temperature: optional(z.number().min(0).max(100), 1),
  top_p: optional(z.number().gt(0).max(1), 1),
  top_k: optional(integer(-1, 2 ** 31 - 1), 0),
  min_p: optional(z.number().min(0).max(1), 0),
  seed: optional(z.number().int(), null),
  presence_penalty: optional(z.number().min(-2).max(2), 0),
  frequency_penalty: optional(z.number().min(-2).max(2), 0),
  repetition_penalty: optional(z.number().gt(0).max(100), 1),
  logit_bias: optional(
    z
      .record(z.string().regex(/^\d{1,9}$/), z.number().min(-100).max(100))
      .refine((bias) => Object.keys(bias).length <= 1024, { message: 'At most 1024 entries' }),
    {},
  ),
  prompt_logprobs: optional(integer(0, LOGPROBS_MAX), null),
  return_token_ids: optional(z.boolean(), false),
  return_tokens_as_token_ids: optional(z.boolean(), false),
  lora: optional(z.strictObject({ scale: optional(z.number().min(0).max(LORA_SCALE_MAX), 1) }), { scale: 1 }),
};

export const CompletionBody = z.object({
  ...Either,
  prompt: z.union([
    z.string(),
    z.array(TokenId).min(1),
    z.array(z.string()).min(1).max(CHOICES_MAX),
    z.array(z.array(TokenId).min(1)).min(1).max(CHOICES_MAX),
  ]),
  logprobs: optional(integer(0, LOGPROBS_MAX), null),
  echo: optional(z.boolean(), false),
  add_special_tokens: optional(z.boolean(), true),
});
export type CompletionBody = z.output<typeof CompletionBody>;

const TextPart = z.object({ type: z.literal('text'), text: z.string() });

/** Text parts are joined by line breaks, as vLLM does, so that templates see one string. */
const Content = z
  .union([z.string(), z.array(TextPart).max(1024)])
  .transform((content) =>
    typeof content === 'string' ? content : content.map(({ text }) => text).join('\n'),
  );

const Message = z
  .object({ role: z.enum(['system', 'developer', 'user', 'assistant']), content: Content })
  .and(z.object({ tool_calls: z.undefined({ error: 'is not supported' }).or(z.null()).optional() }));

export const Messages = z.array(Message).min(1).max(4096);

const TemplateVariables = z.record(
  z.string().regex(/^[a-z_]{1,64}$/),
  z.union([z.string().max(4096), z.number(), z.boolean()]),
);

export const ChatBody = z.object({
  ...Either,
  messages: Messages,
  max_completion_tokens: optional(integer(0, 2 ** 31 - 1), null),
  logprobs: optional(z.boolean(), false),
  top_logprobs: optional(integer(0, LOGPROBS_MAX), null),
  add_generation_prompt: optional(z.boolean(), true),
  chat_template_kwargs: optional(TemplateVariables, {}),
});
export type ChatBody = z.output<typeof ChatBody>;

/** What both endpoints have. */
export type EitherBody = Omit<CompletionBody, 'prompt' | 'logprobs' | 'echo' | 'add_special_tokens'>;

export const TokenizeBody = z.union([
  z.object({
    model: optional(z.string(), null),
    messages: Messages,
    add_generation_prompt: optional(z.boolean(), true),
    chat_template_kwargs: optional(TemplateVariables, {}),
    return_token_strs: optional(z.boolean(), false),
  }),
  z.object({
    model: optional(z.string(), null),
    prompt: z.string(),
    add_special_tokens: optional(z.boolean(), true),
    return_token_strs: optional(z.boolean(), false),
  }),
]);

export const DetokenizeBody = z.object({ model: optional(z.string(), null), tokens: z.array(TokenId) });

/** Refuses by the name of the first field that is wrong. */
export function parseBody<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const unknownKeys = issue?.code === 'unrecognized_keys' ? issue.keys.slice(0, 1) : [];
  const param = [...(issue?.path ?? []), ...unknownKeys].join('.');
  const message = unknownKeys.length > 0 ? 'is not supported' : (issue?.message ?? 'is wrong');
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
