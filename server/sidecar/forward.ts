import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http';
import type { Readable } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import type { Dispatcher } from 'undici';
import { z } from 'zod';
import { HEADER } from '../contract/adapter-api.ts';
import { writeStep } from '../contract/headers.ts';
import { writeTrace } from '../contract/trace.ts';
import type { AskedFor } from '../engine/loader.ts';
import { clientGone } from '../openai/client.ts';
import { badRequest, engineAway } from '../openai/errors.ts';
import { readExpect } from '../openai/expect.ts';
import { parseJsonBody } from '../openai/json-body.ts';
import { type LoraInfo, type Submit, type Taken, takeIn } from '../openai/lease.ts';
import { LoraField, type LoraFields, parseBody } from '../openai/schemas.ts';
import type { AdapterLookup } from '../openai/serving.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { rootMessage } from '../transfer/unreachable.ts';
import { ClientStream, type Passage } from './client-stream.ts';
import { exchange, type Head, type Sink, Whole } from './exchange.ts';
import { type FieldPlace, fieldsOf, withFields } from './json-fields.ts';
import { EventRewriter, type Rewriting, rewriteRefusal, rewriteWhole, tokensIn } from './rewrite.ts';

/** An answer that comes at once is held whole. */
const ANSWER_BYTES_MAX = 64 << 20;
/** The second after a look, which gives the engine back what it lost. */
const TRIES = 2;
const TOUCHED = ['model', 'lora', 'lora_path', 'cache_salt'];
const Fields = z.object({ lora: LoraField });
const { lora: NOTHING_ASKED } = Fields.parse({});

/** Of one connection, or said anew here; answers are read, so they come uncompressed. */
const HOP_BY_HOP = new Set([
  'accept-encoding',
  'connection',
  'content-length',
  'expect',
  'host',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  HEADER.expect,
  HEADER.waitMs,
]);

export interface ForwarderOptions {
  /** To the engine. */
  dispatcher: Dispatcher;
  /** Of its URL, before the path of a request: '' or `/engine`. */
  prefix: string;
  adapters: AdapterLookup;
  engine: {
    /** What it calls its base model. */
    baseName: string;
    asksFor(revision: string): AskedFor;
    /** See AttachedEngine. */
    lease: Submit<Taken>;
    /** See EngineLoader. */
    namedIn(body: Readonly<Record<string, unknown>>): unknown;
    lacksAdapter(status: number, text: string): boolean;
    /** Serves a model of that name that is none of ours. */
    serves(name: string): boolean;
    /** Resolves when it has been looked at. */
    suspect(): Promise<void>;
  };
  /** The base's name in requests. */
  baseModel: string;
  metrics: Pick<Metrics, 'firstToken' | 'trafficOf'>;
  log: Logger;
}

type Target =
  | {
      kind: 'ours';
      /** Which of our models. */
      model: string;
      /** What the answer is to call it. */
      said: string;
      lora: LoraFields;
      places: FieldPlace[];
    }
  | { kind: 'as-it-is' };

/** Sends requests on to the engine, and its answers back as they come. */
export class Forwarder {
  readonly #options: ForwarderOptions;

  constructor(options: ForwarderOptions) {
    this.#options = options;
  }

  /** Whatever it is: as it came, and the answer as it comes. */
  async pass(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const body = request.body as Buffer | Readable | undefined;
    await this.#exchange(request, { body: body ?? null, gone: clientGone(reply) }, (head) => {
      return new ClientStream(reply, { ...head, headers: kept(head.headers) }, AS_IT_IS);
    });
    return reply;
  }

  /** What may name a model: a JSON object. */
  async generate(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const bytes = request.body as Buffer;
    const target = this.#targetOf(parseJsonBody(bytes), bytes);
    if (target.kind === 'as-it-is') return await this.pass(request, reply);
    const gone = clientGone(reply);
    const { engine } = this.#options;
    for (let tries = 1; ; tries += 1) {
      const { lora, taken } = await this.#takeIn(request, target, gone);
      try {
        const rewriting = this.#rewritingOf(target.said, lora);
        const body = bodyFor(bytes, target.places, rewriting);
        const sink = await this.#exchange(request, { body, gone }, (head) => {
          return isWhole(head) ? new Whole(head, ANSWER_BYTES_MAX) : this.#stream(reply, head, rewriting);
        });
        if (sink instanceof ClientStream) return reply;
        const { status } = sink.head;
        const isLost = status >= 400 && lora !== null && engine.lacksAdapter(status, sink.bytes.toString());
        if (!isLost || tries === TRIES) return this.#answer(reply, sink, rewriting);
        // Perhaps its process is another one than it was.
        await engine.suspect();
      } finally {
        taken.leave();
      }
    }
  }

  #targetOf(body: unknown, bytes: Buffer): Target {
    if (typeof body !== 'object' || body === null || Array.isArray(body)) return { kind: 'as-it-is' };
    const { baseModel, engine } = this.#options;
    const { model: said = baseModel } = body as { model?: unknown };
    if (typeof said !== 'string') return { kind: 'as-it-is' };
    const model = engine.namedIn(body as Record<string, unknown>) ?? said;
    if (typeof model !== 'string') throw badRequest('Expected one adapter for all of a request', 'lora_path');
    const isElse = model !== baseModel && engine.serves(model);
    if (isElse && !this.#isOurs(model)) return { kind: 'as-it-is' };
    const places = fieldsOf(bytes);
    const names = places.map(({ name }) => name);
    const twice = TOUCHED.find((name) => names.indexOf(name) !== names.lastIndexOf(name));
    if (twice !== undefined) throw badRequest(`Expected ${twice} once`, twice);
    const lora = 'lora' in body ? servable(parseBody(Fields, body).lora) : NOTHING_ASKED;
    return { kind: 'ours', model, said, lora, places };
  }

  #isOurs(model: string): boolean {
    return this.#options.adapters.models().some(({ name }) => name === model);
  }

  async #takeIn(
    { headers }: FastifyRequest,
    { model, lora: fields }: Extract<Target, { kind: 'ours' }>,
    gone: AbortSignal,
  ): Promise<{ lora: LoraInfo; taken: Taken }> {
    const { adapters, engine } = this.#options;
    const asked = { model, expect: readExpect(fields, headers), policy: 'pin' as const };
    return await takeIn(adapters, asked, engine.lease, gone);
  }

  #rewritingOf(said: string, lora: LoraInfo): Rewriting {
    const { engine } = this.#options;
    const asked = lora === null ? { model: engine.baseName } : engine.asksFor(lora.revision);
    return { asked, model: said, lora };
  }

  async #exchange<S extends Sink>(
    { method, url, headers }: FastifyRequest,
    { body, gone }: { body: Buffer | Readable | null; gone: AbortSignal },
    open: (head: Head) => S,
  ): Promise<S> {
    const { dispatcher, prefix, log, engine } = this.#options;
    const request = {
      method: method as Dispatcher.HttpMethod,
      path: prefix + url,
      headers: { ...kept(headers), ...writeTrace() },
      body,
    };
    try {
      return await exchange(dispatcher, request, gone, open);
    } catch (error) {
      if (gone.aborted) throw gone.reason;
      log.warn({ reason: rootMessage(error) }, 'the engine gave no answer, or no whole one');
      void engine.suspect();
      throw engineAway();
    }
  }

  #stream(reply: FastifyReply, { status, headers }: Head, rewriting: Rewriting): ClientStream {
    const { metrics } = this.#options;
    const name = rewriting.lora?.name ?? null;
    const traffic = metrics.trafficOf(name);
    traffic.requests += 1;
    const head = { status, headers: { ...kept(headers), ...provenanceHeaders(rewriting.lora) } };
    if (!isOf(headers, 'text/event-stream')) return new ClientStream(reply, head, AS_IT_IS);
    const rewriter = new EventRewriter(rewriting);
    return new ClientStream(reply, head, {
      rewrite: (chunk) => rewriter.rewrite(chunk),
      rest() {
        traffic.generatedTokens += rewriter.generatedTokens;
        return rewriter.rest();
      },
      onFirst: () => metrics.firstToken(name, reply.elapsedTime / 1000),
      brokenOff: BROKEN_OFF,
    });
  }

  #answer(reply: FastifyReply, { head, bytes }: Whole, rewriting: Rewriting): FastifyReply {
    const { lora } = rewriting;
    const traffic = this.#options.metrics.trafficOf(lora?.name ?? null);
    traffic.requests += 1;
    void reply.code(head.status).headers(kept(head.headers));
    if (head.status >= 300) return reply.send(rewriteRefusal(bytes, rewriting));
    traffic.generatedTokens += tokensIn(bytes.toString('latin1')) ?? 0;
    return reply.headers(provenanceHeaders(lora)).send(rewriteWhole(bytes, rewriting));
  }
}

/** It is rewritten as one. */
function isWhole({ status, headers }: Head): boolean {
  return status >= 300 || isOf(headers, 'application/json');
}

function isOf(headers: IncomingHttpHeaders, type: string): boolean {
  return headers['content-type']?.startsWith(type) === true;
}

/** Which go on to the other connection. */
function kept(headers: IncomingHttpHeaders): OutgoingHttpHeaders {
  const ours: OutgoingHttpHeaders = {};
  for (const [name, value] of Object.entries(headers)) if (!HOP_BY_HOP.has(name)) ours[name] = value;
  return ours;
}

function provenanceHeaders(lora: LoraInfo): Record<string, string> {
  return lora === null ? {} : { 'x-lora-revision': lora.revision, ...writeStep(lora.step) };
}

const AS_IT_IS: Passage = {
  rewrite: (chunk) => chunk,
  rest: () => '',
  onFirst: () => undefined,
  brokenOff: null,
};

/** For whoever reads a stream whose engine has ended. */
const BROKEN_OFF = `data: ${JSON.stringify(engineAway())}\n\ndata: [DONE]\n\n`;

/** The same request to the model as the engine knows it; what is cached of it is of this content alone. */
function bodyFor(bytes: Buffer, places: readonly FieldPlace[], { asked, lora }: Rewriting): Buffer {
  const salted = lora === null ? {} : saltOf(bytes, places, lora.revision);
  return withFields(bytes, ['lora', 'lora_path'], { ...asked, ...salted }, places);
}

function saltOf(bytes: Buffer, places: readonly FieldPlace[], revision: string): { cache_salt: string } {
  const own = places.find(({ name }) => name === 'cache_salt');
  const text = own && JSON.parse(bytes.toString('utf8', own.valueBegin, own.end));
  return { cache_salt: typeof text === 'string' ? `${revision} ${text}` : revision };
}

/** What only an engine of ours can. */
function servable(fields: LoraFields): LoraFields {
  const { scale, policy, base_logprobs, score_under } = fields;
  const refused = [
    scale === 1 ? [] : ['lora.scale'],
    policy === 'latest' ? ['lora.policy'] : [],
    base_logprobs ? ['lora.base_logprobs'] : [],
    score_under.length > 0 ? ['lora.score_under'] : [],
  ].flat();
  const [field] = refused;
  if (field !== undefined) throw badRequest(`The engine behind this server cannot do ${field}`, field);
  return fields;
}
