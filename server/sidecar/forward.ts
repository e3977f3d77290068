import type { Readable } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { type Dispatcher, request as send } from 'undici';
import { z } from 'zod';
import { HEADER } from '../contract/adapter-api.ts';
import { writeStep } from '../contract/headers.ts';
import { writeTrace } from '../contract/trace.ts';
import type { AskedFor } from '../engine/loader.ts';
import { clientGone } from '../openai/client.ts';
import { badRequest, engineAway } from '../openai/errors.ts';
import { readExpect } from '../openai/expect.ts';
import { parseJsonBody } from '../openai/json-body.ts';
import { type Entrance, type LoraInfo, takeIn } from '../openai/lease.ts';
import type { Generation } from '../openai/plan.ts';
import { LoraField, type LoraFields, parseBody } from '../openai/schemas.ts';
import { patiently } from '../openai/unread.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { rootMessage } from '../transfer/unreachable.ts';
import { type FieldPlace, fieldsOf, withFields } from './json-fields.ts';
import { EventRewriter, type Rewriting, rewriteRefusal, rewriteWhole, tokensIn } from './rewrite.ts';

/** An answer that comes at once is held whole. */
const ANSWER_BYTES_MAX = 64 << 20;
/** The second after a look, which gives the engine back what it lost. */
const TRIES = 2;
const TOUCHED = ['model', 'lora', 'lora_path', 'cache_salt'];
const Fields = z.looseObject({ lora: LoraField });
/** The engine that takes it makes no tokens: see AttachedEngine.generate. */
const LEASE_ONLY = {} as Generation;

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
  /** `http://127.0.0.1:8000` */
  url: string;
  dispatcher: Dispatcher;
  entrance: Entrance;
  engine: {
    /** What it calls its base model. */
    baseName: string;
    asksFor(revision: string): AskedFor;
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

type Answer = Dispatcher.ResponseData;
type Target = { kind: 'ours'; model: string; lora: LoraFields; places: FieldPlace[] } | { kind: 'as-it-is' };

/** Sends requests on to the engine, and its answers back as they come. */
export class Forwarder {
  readonly #options: ForwarderOptions;

  constructor(options: ForwarderOptions) {
    this.#options = options;
  }

  /** Whatever it is: as it came, and the answer as it comes. */
  async pass(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const gone = clientGone(reply);
    const body = request.body as Buffer | Readable | undefined;
    const answer = await this.#send(request, body ?? null, gone);
    return this.#reply(reply, answer).send(answer.body);
  }

  /** What may name a model: a JSON object. */
  async generate(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const bytes = request.body as Buffer;
    const target = this.#targetOf(parseJsonBody(bytes), bytes);
    if (target.kind === 'as-it-is') return await this.pass(request, reply);
    const gone = clientGone(reply);
    for (let tries = 1; ; tries += 1) {
      const { lora, leave } = await this.#takeIn(request, target, gone);
      try {
        const rewriting = this.#rewritingOf(target.model, lora);
        const answer = await this.#send(request, bodyFor(bytes, target.places, rewriting), gone);
        // Perhaps its process is another one than it was.
        if (answer.statusCode === 404 && lora !== null && tries < TRIES) {
          await answer.body.dump();
          await this.#options.engine.suspect();
          leave();
          continue;
        }
        gone.addEventListener('abort', leave, { once: true });
        return await this.#answer(reply, answer, rewriting);
      } catch (error) {
        leave();
        throw error;
      }
    }
  }

  #targetOf(body: unknown, bytes: Buffer): Target {
    if (typeof body !== 'object' || body === null || Array.isArray(body)) return { kind: 'as-it-is' };
    const { model = this.#options.baseModel } = body as { model?: unknown };
    if (typeof model !== 'string') return { kind: 'as-it-is' };
    const isElse = model !== this.#options.baseModel && this.#options.engine.serves(model);
    if (isElse && !this.#isOurs(model)) return { kind: 'as-it-is' };
    const places = fieldsOf(bytes);
    const names = places.map(({ name }) => name);
    const twice = TOUCHED.find((name) => names.indexOf(name) !== names.lastIndexOf(name));
    if (twice !== undefined) throw badRequest(`Expected ${twice} once`, twice);
    const { lora } = parseBody(Fields, body);
    requireServable(lora);
    return { kind: 'ours', model, lora, places };
  }

  #isOurs(model: string): boolean {
    return this.#options.entrance.adapters.models().some(({ name }) => name === model);
  }

  async #takeIn(
    { headers }: FastifyRequest,
    { model, lora: fields }: Extract<Target, { kind: 'ours' }>,
    gone: AbortSignal,
  ): Promise<{ lora: LoraInfo; leave: () => void }> {
    const asked = {
      model,
      expect: readExpect(fields, headers),
      policy: 'pin',
      generations: [LEASE_ONLY],
    } as const;
    const { lora, leases } = await takeIn(
      this.#options.entrance,
      { ...asked, generations: [...asked.generations] },
      gone,
    );
    let isHeld = true;
    const leave = () => {
      if (isHeld) for (const { events } of leases) void events.return(undefined);
      isHeld = false;
    };
    return { lora, leave };
  }

  #rewritingOf(model: string, lora: LoraInfo): Rewriting {
    const { engine } = this.#options;
    const asked = lora === null ? { model: engine.baseName } : engine.asksFor(lora.revision);
    return { asked, model, lora };
  }

  async #send(
    { method, url, headers }: FastifyRequest,
    body: Buffer | Readable | null,
    gone: AbortSignal,
  ): Promise<Answer> {
    gone.throwIfAborted();
    const passedOn = Object.entries(headers).filter(
      ([name, value]) => !HOP_BY_HOP.has(name) && value !== undefined,
    );
    try {
      return await send(this.#options.url + url, {
        method: method as Dispatcher.HttpMethod,
        headers: { ...Object.fromEntries(passedOn), ...writeTrace() },
        body,
        dispatcher: this.#options.dispatcher,
        signal: gone,
      });
    } catch (error) {
      if (gone.aborted) throw gone.reason;
      this.#options.log.warn({ reason: rootMessage(error) }, 'the engine gave no answer');
      void this.#options.engine.suspect();
      throw engineAway();
    }
  }

  /** With the engine's status and headers. */
  #reply(reply: FastifyReply, { statusCode, headers }: Answer): FastifyReply {
    const passedOn = Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name));
    return reply.code(statusCode).headers(Object.fromEntries(passedOn));
  }

  async #answer(reply: FastifyReply, answer: Answer, rewriting: Rewriting): Promise<FastifyReply> {
    const { lora } = rewriting;
    const type = String(answer.headers['content-type'] ?? '');
    this.#reply(reply, answer);
    if (lora !== null && answer.statusCode < 300)
      void reply.headers({ 'x-lora-revision': lora.revision, ...writeStep(lora.step) });
    const traffic = this.#options.metrics.trafficOf(lora?.name ?? null);
    traffic.requests += 1;
    const onTokens = (generated: number) => {
      traffic.generatedTokens += generated;
    };
    if (answer.statusCode < 300 && type.startsWith('text/event-stream')) {
      const onFirst = () => this.#options.metrics.firstToken(lora?.name ?? null, reply.elapsedTime / 1000);
      const rewriter = new EventRewriter(rewriting, { onFirst, onTokens });
      answer.body.once('error', () => rewriter.end(BROKEN_OFF));
      const pieces = answer.body.pipe(rewriter).setEncoding('utf8');
      return reply.send(patiently(pieces, () => reply.raw.destroy()));
    }
    if (!type.startsWith('application/json')) return reply.send(answer.body);
    const bytes = await this.#wholeOf(answer);
    if (answer.statusCode >= 300) return reply.send(rewriteRefusal(bytes, rewriting));
    onTokens(tokensIn(bytes.toString('latin1')) ?? 0);
    return reply.send(rewriteWhole(bytes, rewriting));
  }

  async #wholeOf({ body }: Answer): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let length = 0;
    try {
      for await (const chunk of body) {
        length += chunk.length;
        if (length > ANSWER_BYTES_MAX) throw new Error(`the answer is longer than ${ANSWER_BYTES_MAX} bytes`);
        chunks.push(chunk);
      }
    } catch (error) {
      this.#options.log.warn({ reason: rootMessage(error) }, 'the engine broke off its answer');
      void this.#options.engine.suspect();
      throw engineAway();
    }
    return Buffer.concat(chunks);
  }
}

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
function requireServable({ scale, policy, base_logprobs, score_under }: LoraFields): void {
  const refused = [
    scale === 1 ? [] : ['lora.scale'],
    policy === 'latest' ? ['lora.policy'] : [],
    base_logprobs ? ['lora.base_logprobs'] : [],
    score_under.length > 0 ? ['lora.score_under'] : [],
  ].flat();
  const [field] = refused;
  if (field !== undefined) throw badRequest(`The engine behind this server cannot do ${field}`, field);
}
