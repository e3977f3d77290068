import { randomUUID } from 'node:crypto';
import type { FastifyReply } from 'fastify';
import { writeStep } from '../contract/headers.ts';
import type { FailureCode, LogprobsMode, TokenLogprobs } from '../engine/port.ts';
import type { Account } from './byte-budget.ts';
import { engineFailure, type OpenAiError } from './errors.ts';
import { type ExpectFields, readExpect } from './expect.ts';
import { sendJson } from './json-text.ts';
import { type Lease, type LoraInfo, takeIn } from './lease.ts';
import { merge } from './merge.ts';
import type { Plan } from './plan.ts';
import { type Finish, type GeneratedToken, type Piece, readChoice } from './reading.ts';
import type { EitherBody } from './schemas.ts';
import type { Serving } from './serving.ts';
import { eventStream, SSE_HEADERS } from './sse.ts';

/** What the engine's report of one token or alternative takes. */
const LOGPROB_BYTES = 64;
const TOKEN_ID_BYTES = 8;

/** Writes one choice in the words of one endpoint. */
export interface ChoiceWriter {
  onPrompt(logprobs: TokenLogprobs[]): void;
  /** A streamed choice before there is any text, or null. */
  opening(): object | null;
  delta(piece: Piece): object;
  /** More of a choice that is answered at once. */
  add(tokens: GeneratedToken[]): void;
  /** The choice at once, its tokens being added. */
  whole(gathered: Gathered): Promise<object>;
}

/** A choice to its end, but for its log-probabilities. */
export interface Gathered {
  text: string;
  ids: number[];
  finish: Finish | null;
}

interface Streaming {
  includeUsage: boolean;
  usageInEveryChunk: boolean;
}

/** Null: the answer goes out at once. */
export function streamOf({
  stream,
  stream_options: options,
}: Pick<EitherBody, 'stream' | 'stream_options'>): Streaming | null {
  if (!stream) return null;
  return {
    includeUsage: options?.include_usage ?? false,
    usageInEveryChunk: options?.continuous_usage_stats ?? false,
  };
}

export interface Exchange {
  model: string;
  /** What the body says of its revision, where the endpoint has a field for that. */
  lora?: ExpectFields;
  idPrefix: string;
  object: { whole: string; chunk: string };
  stream: Streaming | null;
  promptTokens: number;
  choices: { plan: Plan; writer: ChoiceWriter }[];
  /** Fields of the response besides the usual ones, read when all choices are written. */
  extra(): Promise<object>;
}

/** Runs the choices of a request and answers it, streamed or at once. */
export async function answer(
  serving: Serving,
  exchange: Exchange,
  { reply, gone }: { reply: FastifyReply; gone: AbortSignal },
): Promise<object> {
  gone.throwIfAborted();
  const failed = new AbortController();
  const signal = AbortSignal.any([gone, failed.signal]);
  const expect = readExpect(exchange.lora, reply.request.headers);
  const generations = exchange.choices.map(({ plan }) => plan.generation);
  const request = { model: exchange.model, expect, generations };
  const taken = await takeIn(serving, request, signal);
  const { lora } = taken;
  if (lora !== null) {
    void reply.header('x-lora-revision', lora.revision);
    void reply.headers(writeStep(lora.step));
  }
  const run = new Run(serving, exchange, taken, reply);
  if (exchange.stream === null) {
    const whole = await run.whole().catch((error) => {
      failed.abort(error);
      throw error;
    });
    return sendJson(reply, whole);
  }
  void reply.headers(SSE_HEADERS);
  return reply.send(eventStream(run.chunks(), () => reply.raw.destroy()));
}

/** An adapter whose weights overflow fails its own requests alone, which is for its owner to mend. */
function refusal({ log }: Serving, model: string, lora: LoraInfo, code: FailureCode): OpenAiError {
  const refused = engineFailure(code, model, lora);
  if (code === 'non_finite' && lora !== null) {
    log.warn({ adapter: lora.name, revision: lora.revision }, refused.message);
  }
  return refused;
}

/** All choices of a request have the same. */
function logprobsModeOf([first]: Exchange['choices']): { logprobs_mode?: LogprobsMode } {
  const { logprobs = -1, logprobsMode = 'raw' } = first?.plan.generation ?? {};
  return logprobs < 0 ? {} : { logprobs_mode: logprobsMode };
}

class Run {
  private readonly exchange: Exchange;
  /** What the tokens came from: the revision, and which log-probabilities theirs are, where they were asked for. */
  private readonly origin: { lora: LoraInfo; logprobs_mode?: LogprobsMode };
  private readonly account: Account;
  private readonly sources: AsyncGenerator<Piece>[];
  private readonly id: string;
  private readonly created = Math.floor(Date.now() / 1000);
  private completionTokens = 0;

  private readonly onFirstToken: () => void;

  constructor(
    serving: Serving,
    exchange: Exchange,
    taken: { lora: LoraInfo; leases: Lease[] },
    reply: FastifyReply,
  ) {
    const { lora, leases } = taken;
    this.exchange = exchange;
    this.origin = { lora, ...logprobsModeOf(exchange.choices) };
    this.account = reply.request.account;
    this.onFirstToken = () => serving.metrics.firstToken(reply.elapsedTime / 1000);
    this.id = `${exchange.idPrefix}-${randomUUID()}`;
    this.sources = exchange.choices.map(({ plan, writer }, index) =>
      readChoice((leases[index] as Lease).events, plan.reading, serving.tokenizer, {
        onPrompt: (logprobs) => {
          const alternatives = logprobs[0]?.top.length ?? 0;
          this.account.addAnswer(logprobs.length * (1 + alternatives) * LOGPROB_BYTES);
          writer.onPrompt(logprobs);
        },
        refusal: (code) => refusal(serving, exchange.model, lora, code),
      }),
    );
  }

  async whole(): Promise<object> {
    const choices = await Promise.all(
      this.exchange.choices.map(async ({ writer }, index) =>
        writer.whole(await this.collect(this.sources[index] as AsyncGenerator<Piece>, writer)),
      ),
    );
    return {
      ...this.head(this.exchange.object.whole),
      choices,
      usage: this.usage(),
      ...this.origin,
      ...(await this.exchange.extra()),
    };
  }

  async *chunks(): AsyncGenerator<object> {
    const { stream, choices } = this.exchange;
    const usage = () => (stream?.usageInEveryChunk ? { usage: this.usage() } : {});
    const head = this.head(this.exchange.object.chunk);
    for (const { writer } of choices) {
      const opening = writer.opening();
      if (opening !== null) yield { ...head, choices: [opening], ...usage() };
    }
    for await (const { index, item } of merge(this.sources)) {
      this.count(item.tokens);
      const delta = (choices[index] as Exchange['choices'][number]).writer.delta(item);
      const origin = item.finish === null ? {} : this.origin;
      yield { ...head, choices: [delta], ...usage(), ...origin };
    }
    if (stream?.includeUsage) yield { ...head, choices: [], usage: this.usage(), ...this.origin };
  }

  private async collect(source: AsyncGenerator<Piece>, writer: ChoiceWriter): Promise<Gathered> {
    const gathered: Gathered = { text: '', ids: [], finish: null };
    for await (const { text, tokens, finish } of source) {
      this.count(tokens);
      this.account.addAnswer(text.length + tokens.length * TOKEN_ID_BYTES);
      writer.add(tokens);
      gathered.text += text;
      gathered.ids.push(...tokens.map(({ id }) => id));
      gathered.finish = finish;
    }
    return gathered;
  }

  private count(tokens: GeneratedToken[]): void {
    if (this.completionTokens === 0 && tokens.length > 0) this.onFirstToken();
    this.completionTokens += tokens.length;
  }

  private head(object: string) {
    return { id: this.id, object, created: this.created, model: this.exchange.model };
  }

  private usage() {
    const { promptTokens } = this.exchange;
    return {
      prompt_tokens: promptTokens,
      completion_tokens: this.completionTokens,
      total_tokens: promptTokens + this.completionTokens,
    };
  }
}
