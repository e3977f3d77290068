import type { FastifyReply } from 'fastify';
import type { TokenLogprobs } from '../engine/port.ts';
import type { RequestEncoder } from '../text/encoder.ts';
import type { Account } from './byte-budget.ts';
import { clientGone } from './client.ts';
import { withModelDefaults } from './defaults.ts';
import { encodeText } from './encode.ts';
import { badRequest } from './errors.ts';
import { answer, type ChoiceWriter, type Gathered, streamOf } from './exchange.ts';
import { JsonList } from './json-text.ts';
import {
  type CompletionLogprobs,
  CompletionLogprobsWriter,
  type Naming,
  promptLogprobs,
} from './logprobs.ts';
import { type Plan, planChoice, requireToken } from './plan.ts';
import type { GeneratedToken, Piece } from './reading.ts';
import { CHOICES_MAX, CompletionBody, parseBody, requireStreamable } from './schemas.ts';
import type { Serving } from './serving.ts';
import { requireSupported } from './unsupported.ts';

/** OpenAI's and vLLM's default. */
const MAX_TOKENS_DEFAULT = 16;

interface Prompt {
  ids: number[];
  /** As the client wrote it; null where it sent token ids. */
  text: string | null;
}

export async function completions(
  serving: Serving,
  requestBody: unknown,
  reply: FastifyReply,
): Promise<object> {
  const gone = clientGone(reply);
  requireSupported(requestBody, 'completion');
  const body = parseBody(CompletionBody, withModelDefaults(serving, requestBody));
  requireStreamable(body);
  const items = itemsOf(body);
  requireFewChoices(items.length, body.n);
  const encoder = serving.encoder.forRequest(reply.request.ip, gone);
  const prompts: Prompt[] = [];
  const choices: { plan: Plan; writer: CompletionWriter }[] = [];
  // One prompt after the other: the first that is wrong spares the rest, and requests with many take turns.
  for (const item of items) {
    const prompt = await encoded(serving, encoder, item, body.add_special_tokens);
    const first = prompts.push(prompt) * body.n - body.n;
    for (let choice = 0; choice < body.n; choice += 1) {
      choices.push({
        plan: planChoice(body, wantedOf(body, prompt), serving.model, choice),
        writer: new CompletionWriter(serving, body, {
          prompt,
          index: first + choice,
          account: reply.request.account,
        }),
      });
    }
    // After the plan, which refuses a prompt of millions of tokens for its length.
    for (const id of prompt.ids) requireToken(id, serving.model, 'prompt');
  }
  return await answer(
    serving,
    {
      model: body.model,
      lora: body.lora,
      idPrefix: 'cmpl',
      object: { whole: 'text_completion', chunk: 'text_completion' },
      stream: streamOf(body),
      promptTokens: prompts.reduce((sum, { ids }) => sum + ids.length, 0),
      n: body.n,
      choices,
      extra: async () => ({}),
    },
    { reply, gone },
  );
}

function itemsOf({ prompt }: CompletionBody): (string | number[])[] {
  if (typeof prompt === 'string') return [prompt];
  return isTokens(prompt) ? [prompt] : prompt;
}

function requireFewChoices(prompts: number, n: number): void {
  if (prompts * n <= CHOICES_MAX) return;
  throw badRequest(
    `Expected at most ${CHOICES_MAX} choices but received ${prompts} prompts times n = ${n}`,
    'n',
  );
}

async function encoded(
  serving: Serving,
  encoder: RequestEncoder,
  item: string | number[],
  addSpecial: boolean,
): Promise<Prompt> {
  const isText = typeof item === 'string';
  const ids = isText ? await encodeText(serving, encoder, item, addSpecial) : item;
  if (ids.length === 0) throw badRequest('Expected at least one token but the prompt has none', 'prompt');
  return { ids, text: isText ? item : null };
}

function isTokens(prompt: number[] | string[] | number[][]): prompt is number[] {
  return typeof prompt[0] === 'number';
}

function wantedOf(body: CompletionBody, prompt: Prompt) {
  const echoed = body.echo && body.logprobs !== null ? body.logprobs : -1;
  return {
    prompt: prompt.ids,
    maxTokens: body.max_tokens ?? MAX_TOKENS_DEFAULT,
    logprobs: body.logprobs ?? -1,
    promptLogprobs: Math.max(echoed, body.prompt_logprobs ?? -1),
  };
}

class CompletionWriter implements ChoiceWriter {
  private readonly serving: Serving;
  private readonly body: CompletionBody;
  private readonly prompt: Prompt;
  private readonly index: number;
  private readonly naming: Naming;
  private readonly logprobs: CompletionLogprobsWriter;
  private readonly account: Account;
  /** Of an answer at once: its log-probabilities. */
  private readonly columns: Record<keyof CompletionLogprobs, JsonList>;
  private fromPrompt: TokenLogprobs[] = [];
  private echoed = false;

  constructor(
    serving: Serving,
    body: CompletionBody,
    { prompt, index, account }: { prompt: Prompt; index: number; account: Account },
  ) {
    this.account = account;
    this.serving = serving;
    this.body = body;
    this.prompt = prompt;
    this.index = index;
    this.naming = { tokenizer: serving.tokenizer, asIds: body.return_tokens_as_token_ids };
    this.logprobs = new CompletionLogprobsWriter(this.naming);
    this.columns = {
      tokens: new JsonList(account),
      token_ids: new JsonList(account),
      token_logprobs: new JsonList(account),
      top_logprobs: new JsonList(account),
      text_offset: new JsonList(account),
    };
  }

  onPrompt(logprobs: TokenLogprobs[]): void {
    this.fromPrompt = logprobs;
  }

  opening(): null {
    return null;
  }

  delta(piece: Piece): object {
    const first = !this.echoed;
    const { body, prompt } = this;
    return {
      index: this.index,
      text: (body.echo && first ? this.promptText() : '') + piece.text,
      logprobs: body.logprobs === null ? null : this.logprobs.write(this.withEcho(piece.tokens)),
      finish_reason: piece.finish?.reason ?? null,
      stop_reason: piece.finish?.stopReason ?? null,
      ...(body.return_token_ids ? { token_ids: piece.tokens.map(({ id }) => id) } : {}),
      ...(body.return_token_ids && first ? { prompt_token_ids: prompt.ids } : {}),
    };
  }

  add(tokens: GeneratedToken[]): void {
    if (this.body.logprobs === null) return;
    const written = this.logprobs.write(this.withEcho(tokens));
    for (const [name, column] of Object.entries(this.columns)) {
      column.push(written[name as keyof CompletionLogprobs]);
    }
  }

  async whole({ text, ids, finish }: Gathered): Promise<object> {
    const { body, prompt } = this;
    return {
      index: this.index,
      text: (body.echo ? this.promptText() : '') + text,
      logprobs: body.logprobs === null ? null : this.columns,
      finish_reason: finish?.reason ?? null,
      stop_reason: finish?.stopReason ?? null,
      ...(body.return_token_ids ? { token_ids: ids, prompt_token_ids: prompt.ids } : {}),
      prompt_logprobs: body.prompt_logprobs === null ? null : await this.promptLogprobs(body.prompt_logprobs),
    };
  }

  /** What `echo` asks for comes before the first tokens. */
  private withEcho(tokens: GeneratedToken[]): GeneratedToken[] {
    const first = !this.echoed;
    this.echoed = true;
    if (!first || !this.body.echo) return tokens;
    const echoed = this.prompt.ids.map((id, place) => ({ id, logprobs: this.echoedLogprobs(place) }));
    return [...echoed, ...tokens];
  }

  private async promptLogprobs(alternatives: number): Promise<JsonList> {
    const list = new JsonList(this.account);
    await list.pushAll(promptLogprobs(this.prompt.ids, this.cut(alternatives), this.naming));
    return list;
  }

  private promptText(): string {
    return this.prompt.text ?? this.serving.tokenizer.decode(this.prompt.ids, { skipSpecial: false });
  }

  private echoedLogprobs(place: number): TokenLogprobs | null {
    const logprobs = this.fromPrompt[place - 1];
    if (logprobs === undefined) return null;
    return { ...logprobs, top: logprobs.top.slice(0, this.body.logprobs ?? 0) };
  }

  /** The engine gave as many alternatives as the more demanding of `echo` and `prompt_logprobs` wants. */
  private cut(alternatives: number): TokenLogprobs[] {
    return this.fromPrompt.map(({ logprob, top }) => ({ logprob, top: top.slice(0, alternatives) }));
  }
}
