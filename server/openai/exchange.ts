import { randomUUID } from 'node:crypto';
import type { FastifyReply } from 'fastify';
import { meetsExpectation } from '../contract/expectation.ts';
import { writeStep } from '../contract/headers.ts';
import { keepingTrace } from '../contract/trace.ts';
import type { FailureCode, LogprobsMode, TokenLogprobs } from '../engine/port.ts';
import type { AdapterTraffic } from '../telemetry/by-adapter.ts';
import type { Account } from './byte-budget.ts';
import { engineFailure, expectationUnmet, type OpenAiError } from './errors.ts';
import { type Expect, readExpect, requireConsistent } from './expect.ts';
import { sendJson } from './json-text.ts';
import type { LoraInfo } from './lease.ts';
import { merge } from './merge.ts';
import type { Plan } from './plan.ts';
import { type Finish, type GeneratedToken, type Piece, readChoice } from './reading.ts';
import type { EitherBody, LoraFields } from './schemas.ts';
import { Scorer } from './scores.ts';
import { type Sequence, takeInAll } from './sequences.ts';
import type { Serving } from './serving.ts';
import { Spans } from './spans.ts';
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

interface Choice {
  plan: Plan;
  writer: ChoiceWriter;
}

export interface Exchange {
  model: string;
  /** What the body says of its revisions. */
  lora: LoraFields;
  idPrefix: string;
  object: { whole: string; chunk: string };
  stream: Streaming | null;
  promptTokens: number;
  /** Choices of each prompt. */
  n: number;
  choices: Choice[];
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
  const { model, lora: asked } = exchange;
  const terms = {
    expect: readExpect(asked, reply.request.headers),
    policy: asked.policy ?? ('activation' as const),
  };
  requireConsistent(terms);
  const scorer = new Scorer(serving, { base: asked.base_logprobs, under: asked.score_under });
  const generations = exchange.choices.map(({ plan }) => plan.generation);
  const { cut, leave } = await serving.gate.enter(gone);
  gone.addEventListener('abort', leave, { once: true });
  const failed = new AbortController();
  const signal = AbortSignal.any([gone, failed.signal, cut]);
  try {
    const taken = await takeInAll(serving, { model, ...terms, generations }, signal);
    const { lora } = taken;
    if (lora !== null) {
      void reply.header('x-lora-revision', lora.revision);
      void reply.headers(writeStep(lora.step));
    }
    const run = new Run(serving, exchange, { ...taken, expect: terms.expect, scorer, signal, cut }, reply);
    if (exchange.stream !== null) {
      void reply.headers(SSE_HEADERS);
      return reply.send(eventStream(run.chunks(), () => reply.raw.destroy()));
    }
    return sendJson(reply, await run.whole());
  } catch (error) {
    failed.abort(error);
    throw error;
  }
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

/** A request that the engine has taken in. */
interface Taken {
  lora: LoraInfo;
  sequences: Sequence[];
  expect: Expect | null;
  scorer: Scorer;
  signal: AbortSignal;
  cut: AbortSignal;
}

class Run {
  private readonly exchange: Exchange;
  private readonly taken: Taken;
  /** Of each choice; null for the base. */
  private readonly spans: (Spans | null)[];
  /** Ids of each choice's tokens so far. */
  private readonly ids: number[][];
  private readonly account: Account;
  private readonly sources: AsyncGenerator<Piece>[];
  private readonly id: string;
  private readonly created = Math.floor(Date.now() / 1000);
  private completionTokens = 0;
  private cachedTokens = 0;

  private readonly onFirstToken: () => void;
  private readonly traffic: AdapterTraffic;

  constructor(serving: Serving, exchange: Exchange, taken: Taken, reply: FastifyReply) {
    const { lora, sequences, expect, cut } = taken;
    this.exchange = exchange;
    this.taken = taken;
    this.spans = exchange.choices.map(() =>
      lora === null ? null : new Spans({ from: 0, revision: lora.revision, step: lora.step }),
    );
    this.ids = exchange.choices.map(() => []);
    this.account = reply.request.account;
    const adapter = lora?.name ?? null;
    this.onFirstToken = () => serving.metrics.firstToken(adapter, reply.elapsedTime / 1000);
    this.traffic = serving.metrics.trafficOf(adapter);
    this.traffic.requests += 1;
    this.id = `${exchange.idPrefix}-${randomUUID()}`;
    serving.log.debug(
      {
        id: this.id,
        adapter: lora?.name ?? null,
        revision: lora?.revision ?? null,
        sequences: sequences.length,
      },
      'taken in by the engine',
    );
    this.sources = exchange.choices.map(({ plan, writer }, index) =>
      readChoice(sequences[index] as Sequence, plan.reading, serving.tokenizer, {
        onStarted: (cachedTokens) => {
          this.traffic.promptTokens += plan.generation.prompt.length;
          this.traffic.cachedTokens += cachedTokens;
          if (index % exchange.n === 0) this.cachedTokens += cachedTokens;
        },
        onMoved: (revision, from) => {
          if (expect !== null && !meetsExpectation(revision, expect.revision))
            throw expectationUnmet(exchange.model, expect.revision, revision);
          this.spans[index]?.add({ from, revision: revision.digest, step: revision.step });
        },
        onPrompt: (logprobs) => {
          const alternatives = logprobs[0]?.top.length ?? 0;
          this.account.addAnswer(logprobs.length * (1 + alternatives) * LOGPROB_BYTES);
          writer.onPrompt(logprobs);
        },
        isCut: () => cut.aborted,
        refusal: keepingTrace((code: FailureCode) => refusal(serving, exchange.model, lora, code)),
      }),
    );
  }

  async whole(): Promise<object> {
    const choices = await Promise.all(
      this.exchange.choices.map(async ({ writer }, index) => {
        const gathered = await this.collect(index);
        const written = await writer.whole(gathered);
        return { ...written, ...(await this.provenance(index)) };
      }),
    );
    return {
      ...this.head(this.exchange.object.whole),
      choices,
      usage: this.usage(),
      ...this.origin(0),
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
      this.count(index, item.tokens);
      const delta = (choices[index] as Choice).writer.delta(item);
      if (item.finish === null) yield { ...head, choices: [delta], ...usage() };
      else {
        const last = { ...delta, ...(await this.provenance(index)) };
        yield { ...head, choices: [last], ...usage(), ...this.origin(index) };
      }
    }
    if (stream?.includeUsage) yield { ...head, choices: [], usage: this.usage(), ...this.origin(0) };
  }

  private async collect(index: number): Promise<Gathered> {
    const { writer } = this.exchange.choices[index] as Choice;
    const gathered: Gathered = { text: '', ids: [], finish: null };
    for await (const { text, tokens, finish } of this.sources[index] as AsyncGenerator<Piece>) {
      this.count(index, tokens);
      this.account.addAnswer(text.length + tokens.length * TOKEN_ID_BYTES);
      writer.add(tokens);
      gathered.text += text;
      gathered.ids.push(...tokens.map(({ id }) => id));
      gathered.finish = finish;
    }
    return gathered;
  }

  /** What a response's tokens came from: the revisions, and which log-probabilities theirs are, where they were asked for. */
  private origin(index: number) {
    const { lora } = this.taken;
    const mode = logprobsModeOf(this.exchange.choices);
    const spans = this.spans[index];
    if (lora === null || spans == null) return { lora, ...mode };
    const versions = spans.weightVersions(this.ids[index]?.length ?? 0);
    return {
      lora: { ...lora, spans },
      weight_version: lora.revision,
      weight_versions: versions,
      ...mode,
    };
  }

  /** What a choice's tokens came from, and how likely others find them. */
  private async provenance(index: number): Promise<object> {
    const { scorer, signal, cut } = this.taken;
    const spans = this.spans[index];
    if (!scorer.isAsked || cut.aborted) return spans == null ? {} : { lora: { spans } };
    const { generation } = (this.exchange.choices[index] as Choice).plan;
    const scores = await scorer.score(generation, this.ids[index] as number[], signal);
    return { lora: { ...(spans == null ? {} : { spans }), ...scores } };
  }

  private count(index: number, tokens: GeneratedToken[]): void {
    this.ids[index]?.push(...tokens.map(({ id }) => id));
    if (this.completionTokens === 0 && tokens.length > 0) this.onFirstToken();
    this.completionTokens += tokens.length;
    this.traffic.generatedTokens += tokens.length;
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
      prompt_tokens_details: { cached_tokens: this.cachedTokens },
    };
  }
}
