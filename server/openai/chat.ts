import type { FastifyReply } from 'fastify';
import type { TokenLogprobs } from '../engine/port.ts';
import type { Account } from './byte-budget.ts';
import { clientGone } from './client.ts';
import { withModelDefaults } from './defaults.ts';
import { encodeChat } from './encode.ts';
import { badRequest } from './errors.ts';
import { answer, type ChoiceWriter, type Gathered, streamOf } from './exchange.ts';
import { JsonList } from './json-text.ts';
import { chatLogprobs, type Naming, promptLogprobs } from './logprobs.ts';
import { planChoice } from './plan.ts';
import type { Finish, GeneratedToken, Piece } from './reading.ts';
import { ChatBody, parseBody, requireStreamable, templateVariables } from './schemas.ts';
import type { Serving } from './serving.ts';
import { requireSupported } from './unsupported.ts';

export async function chat(serving: Serving, requestBody: unknown, reply: FastifyReply): Promise<object> {
  const gone = clientGone(reply);
  requireSupported(requestBody, 'chat');
  const body = parseBody(ChatBody, withModelDefaults(serving, requestBody));
  requireStreamable(body);
  if (body.top_logprobs !== null && !body.logprobs) {
    throw badRequest('top_logprobs needs logprobs: true', 'top_logprobs');
  }
  const prompt = await encodeChat(serving, serving.encoder.forRequest(reply.request.ip, gone), {
    messages: body.messages,
    addGenerationPrompt: body.add_generation_prompt,
    variables: templateVariables(body),
  });
  const wanted = {
    prompt,
    maxTokens: body.max_completion_tokens ?? body.max_tokens,
    logprobs: body.logprobs ? (body.top_logprobs ?? 0) : -1,
    promptLogprobs: body.prompt_logprobs ?? -1,
  };
  const choices = Array.from({ length: body.n }, (_, index) => ({
    plan: planChoice(body, wanted, serving.model, index),
    writer: new ChatWriter(serving, body, { prompt, index, account: reply.request.account }),
  }));
  return await answer(
    serving,
    {
      model: body.model,
      lora: body.lora,
      idPrefix: 'chatcmpl',
      object: { whole: 'chat.completion', chunk: 'chat.completion.chunk' },
      stream: streamOf(body),
      promptTokens: prompt.length,
      n: body.n,
      choices,
      extra: async () => ({
        ...(body.return_token_ids ? { prompt_token_ids: prompt } : {}),
        ...(body.prompt_logprobs === null
          ? {}
          : { prompt_logprobs: await choices[0]?.writer.promptLogprobs() }),
      }),
    },
    { reply, gone },
  );
}

class ChatWriter implements ChoiceWriter {
  private readonly body: ChatBody;
  private readonly prompt: number[];
  private readonly index: number;
  private readonly naming: Naming;
  private readonly account: Account;
  /** Of an answer at once: its log-probabilities. */
  private readonly content: JsonList;
  private fromPrompt: TokenLogprobs[] = [];

  constructor(
    serving: Serving,
    body: ChatBody,
    { prompt, index, account }: { prompt: number[]; index: number; account: Account },
  ) {
    this.account = account;
    this.content = new JsonList(account);
    this.body = body;
    this.prompt = prompt;
    this.index = index;
    this.naming = { tokenizer: serving.tokenizer, asIds: body.return_tokens_as_token_ids };
  }

  onPrompt(logprobs: TokenLogprobs[]): void {
    this.fromPrompt = logprobs;
  }

  async promptLogprobs(): Promise<JsonList> {
    const list = new JsonList(this.account);
    await list.pushAll(promptLogprobs(this.prompt, this.fromPrompt, this.naming));
    return list;
  }

  opening(): object {
    return {
      index: this.index,
      delta: { role: 'assistant', content: '' },
      logprobs: null,
      finish_reason: null,
      ...(this.body.return_token_ids && this.index === 0 ? { prompt_token_ids: this.prompt } : {}),
    };
  }

  delta(piece: Piece): object {
    return {
      index: this.index,
      delta: piece.text === '' ? {} : { content: piece.text },
      logprobs: this.body.logprobs ? chatLogprobs(piece.tokens, this.naming) : null,
      ...this.rest(
        piece.tokens.map(({ id }) => id),
        piece.finish,
      ),
    };
  }

  add(tokens: GeneratedToken[]): void {
    if (this.body.logprobs) this.content.push(chatLogprobs(tokens, this.naming).content);
  }

  async whole({ text, ids, finish }: Gathered): Promise<object> {
    return {
      index: this.index,
      message: { role: 'assistant', content: text },
      logprobs: this.body.logprobs ? { content: this.content, refusal: null } : null,
      ...this.rest(ids, finish),
    };
  }

  private rest(ids: number[], finish: Finish | null): object {
    return {
      finish_reason: finish?.reason ?? null,
      stop_reason: finish?.stopReason ?? null,
      ...(this.body.return_token_ids ? { token_ids: ids } : {}),
    };
  }
}
