import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import type { TokenLogprobs } from '../engine/port.ts';
import type { Account } from '../openai/byte-budget.ts';
import { clientGone } from '../openai/client.ts';
import { withModelDefaults } from '../openai/defaults.ts';
import { badRequest } from '../openai/errors.ts';
import { answer, type ChoiceWriter, type Gathered, streamOf } from '../openai/exchange.ts';
import { JsonList } from '../openai/json-text.ts';
import { chatLogprobs, type Naming, promptLogprobs } from '../openai/logprobs.ts';
import { planChoice, requireToken } from '../openai/plan.ts';
import type { GeneratedToken, Piece } from '../openai/reading.ts';
import { CompletionBody, parseBody, requireStreamable } from '../openai/schemas.ts';
import type { Serving } from '../openai/serving.ts';
import { requireSupported } from '../openai/unsupported.ts';

/** vLLM's default. */
const MAX_TOKENS_DEFAULT = 16;

/** What is not of sampling. `lora` is ours, as completions have it. */
const Envelope = z.object({
  request_id: z.string().min(1).max(256).nullish(),
  model: z.string().nullish(),
  token_ids: z.unknown().optional(),
  sampling_params: z.looseObject({}).nullish(),
  stream: z.unknown().optional(),
  stream_options: z.unknown().optional(),
  cache_salt: z.unknown().optional(),
  lora: z.unknown().optional(),
  kv_transfer_params: z.null().optional(),
  features: z.null().optional(),
});

/** vLLM's tokens in, tokens out: a completion without text, whose sampling parameters have a place of their own. */
export async function generate(serving: Serving, requestBody: unknown, reply: FastifyReply): Promise<object> {
  const gone = clientGone(reply);
  const { request_id: requestId, ...envelope } = parseBody(Envelope, requestBody);
  const body = asCompletion(serving, envelope);
  const prompt = body.prompt as number[];
  const naming = { tokenizer: serving.tokenizer, asIds: true };
  const wanted = {
    prompt,
    maxTokens: body.max_tokens ?? MAX_TOKENS_DEFAULT,
    logprobs: body.logprobs ?? -1,
    promptLogprobs: body.prompt_logprobs ?? -1,
  };
  const { account } = reply.request;
  const choices = Array.from({ length: body.n }, (_, index) => ({
    plan: planChoice(body, wanted, serving.model, index),
    writer: new TokensWriter({ index, naming, account, wantsLogprobs: body.logprobs !== null }),
  }));
  // After the plan, which refuses a prompt of millions of tokens for its length.
  for (const id of prompt) requireToken(id, serving.model, 'token_ids');
  return await answer(
    serving,
    {
      model: body.model,
      lora: body.lora,
      idPrefix: 'generate',
      object: { whole: 'generate', chunk: 'generate.chunk' },
      stream: streamOf(body),
      promptTokens: prompt.length,
      n: body.n,
      choices,
      extra: async () => ({
        ...(requestId == null ? {} : { request_id: requestId }),
        prompt_logprobs:
          body.prompt_logprobs === null ? null : await choices[0]?.writer.promptLogprobs(prompt),
      }),
    },
    { reply, gone },
  );
}

type Asked = Omit<z.output<typeof Envelope>, 'request_id'>;

/** Without a model it is for the base, as in vLLM. */
function asCompletion(
  serving: Serving,
  { model, token_ids: prompt, sampling_params: sampling, ...rest }: Asked,
): CompletionBody {
  if (!Array.isArray(prompt) || typeof prompt[0] !== 'number') {
    throw badRequest('Expected a list of at least one token id for token_ids', 'token_ids');
  }
  requireSupported(sampling ?? {}, 'completion');
  const asked = { ...sampling, model: model ?? serving.model.name, prompt, ...rest };
  const body = parseBody(CompletionBody, withModelDefaults(serving, asked));
  requireStreamable(body);
  return body;
}

interface WriterOptions {
  index: number;
  naming: Naming;
  account: Account;
  wantsLogprobs: boolean;
}

class TokensWriter implements ChoiceWriter {
  private readonly options: WriterOptions;
  /** Of an answer at once: its log-probabilities. */
  private readonly content: JsonList;
  private fromPrompt: TokenLogprobs[] = [];

  constructor(options: WriterOptions) {
    this.options = options;
    this.content = new JsonList(options.account);
  }

  onPrompt(logprobs: TokenLogprobs[]): void {
    this.fromPrompt = logprobs;
  }

  async promptLogprobs(prompt: number[]): Promise<JsonList> {
    const list = new JsonList(this.options.account);
    await list.pushAll(promptLogprobs(prompt, this.fromPrompt, this.options.naming));
    return list;
  }

  opening(): null {
    return null;
  }

  delta({ tokens, finish }: Piece): object {
    const { index, naming, wantsLogprobs } = this.options;
    return {
      index,
      logprobs: wantsLogprobs ? chatLogprobs(tokens, naming) : null,
      finish_reason: finish?.reason ?? null,
      token_ids: tokens.map(({ id }) => id),
    };
  }

  add(tokens: GeneratedToken[]): void {
    const { naming, wantsLogprobs } = this.options;
    if (wantsLogprobs) this.content.push(chatLogprobs(tokens, naming).content);
  }

  async whole({ ids, finish }: Gathered): Promise<object> {
    const { index, wantsLogprobs } = this.options;
    return {
      index,
      logprobs: wantsLogprobs ? { content: this.content } : null,
      finish_reason: finish?.reason ?? null,
      token_ids: ids,
    };
  }
}
