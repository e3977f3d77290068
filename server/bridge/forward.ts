import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { type Dispatcher, request as send } from 'undici';
import { z } from 'zod';
import { HEADER } from '../contract/adapter-api.ts';
import { meetsExpectation } from '../contract/expectation.ts';
import { readExpectation, readWaitMs } from '../contract/headers.ts';
import { writeTrace } from '../contract/trace.ts';
import { clientGone } from '../openai/client.ts';
import { badRequest, expectationUnmet, modelNotFound, OpenAiError } from '../openai/errors.ts';
import { readExpect } from '../openai/expect.ts';
import type { Gate } from '../openai/gate.ts';
import { LoraField, parseBody } from '../openai/schemas.ts';
import { rootMessage } from '../transfer/unreachable.ts';
import { type Fleet, notReady } from './fleet.ts';
import type { Names, Version } from './names.ts';
import type { Pod } from './pods.ts';
import { affinityKey, choosePod } from './route.ts';

/** Pods that are asked for one answer. */
const TRIES_MAX = 3;
const REVISION = 'x-lora-revision';
const JSON_CONTENT = { 'content-type': 'application/json' };
const Expecting = z.looseObject({ lora: LoraField });
const PASSED_ON = ['content-type', 'content-length', 'cache-control', 'retry-after', REVISION, HEADER.step];

export interface ForwarderOptions {
  fleet: Pick<Fleet, 'ready'>;
  gate: Gate;
  names: Pick<Names, 'find'>;
  dispatcher: Dispatcher;
  baseModel: () => Promise<string>;
  inFlightMax: number;
  /** Without a byte from the pod. */
  silenceMs: number;
  log: Logger;
}

type Body = Record<string, unknown>;

/** Null: the base. */
type Target = Version | null;

interface Asked {
  path: string;
  target: Target;
  /** Whether the answer is made by the target, and says so. */
  isGenerated: boolean;
  /** Of the prompt. */
  key: string;
  text: string;
  headers: Record<string, string>;
  gone: AbortSignal;
}

/** A pod's answer whose body has not been read. */
type Answer = Pick<Dispatcher.ResponseData, 'statusCode' | 'headers' | 'body'>;

/** Sends requests on to pods, and answers back as they come; what names an adapter only to the revision loaded so. */
export class Forwarder {
  readonly #options: ForwarderOptions;
  #inFlight = 0;

  constructor(options: ForwarderOptions) {
    this.#options = options;
  }

  /** Answers with what the model generates. */
  generate(path: string, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    return this.#forward(reply, async (gone) => {
      const body = requireObject(request.body);
      const target = await this.#targetOf(body.model);
      const asked = { path, target, isGenerated: true, key: affinityKey(target?.served ?? '', body), gone };
      if (target === null) {
        if (readExpectation(request.headers) !== null) throw notForBase();
        return { ...asked, text: write(body), headers: JSON_CONTENT };
      }
      const waitMs = requireExpected(request, body, target);
      const headers = {
        ...JSON_CONTENT,
        [HEADER.expect]: `revision=${target.revision}`,
        [HEADER.waitMs]: String(waitMs),
      };
      return { ...asked, text: write(asOf(target, body)), headers };
    });
  }

  /** Answers with what is the same under every adapter. */
  convert(path: string, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    return this.#forward(reply, async (gone) => {
      const body = requireObject(request.body);
      const target = await this.#targetOf(body.model);
      const text = write(target === null ? body : { ...body, model: await this.#options.baseModel() });
      const key = affinityKey('', body);
      return { path, target, isGenerated: false, key, text, headers: JSON_CONTENT, gone };
    });
  }

  async #forward(reply: FastifyReply, read: (gone: AbortSignal) => Promise<Asked>): Promise<FastifyReply> {
    const gone = clientGone(reply);
    gone.throwIfAborted();
    if (this.#inFlight >= this.#options.inFlightMax)
      throw new OpenAiError('overloaded', 'As many requests are in flight as may be.');
    this.#inFlight += 1;
    const leave = () => {
      this.#inFlight -= 1;
    };
    gone.addEventListener('abort', leave, { once: true });
    const asked = await this.#admit(await read(gone), gone);
    const { statusCode, headers, body } = await this.#ask(asked);
    const passedOn = PASSED_ON.flatMap((name) =>
      headers[name] === undefined ? [] : [[name, headers[name]]],
    );
    return reply.code(statusCode).headers(Object.fromEntries(passedOn)).send(body);
  }

  /** A pause holds what is generated, here and not in the pods, which others may use. */
  async #admit(asked: Asked, gone: AbortSignal): Promise<Asked> {
    if (!asked.isGenerated) return asked;
    const { cut, leave } = await this.#options.gate.enter(gone);
    gone.addEventListener('abort', leave, { once: true });
    return { ...asked, gone: AbortSignal.any([gone, cut]) };
  }

  /** Nothing of an answer has been read before it is known to be the right one. */
  async #ask(asked: Asked): Promise<Answer> {
    const tried = new Set<Pod>();
    let isMissing = false;
    while (tried.size < TRIES_MAX) {
      const pods = this.#options.fleet.ready().filter((pod) => !tried.has(pod));
      const pod = choosePod(asked.key, pods);
      if (pod === undefined) break;
      tried.add(pod);
      const answer = await this.#askPod(pod, asked);
      if (answer === null) continue;
      const { statusCode } = answer;
      if (asked.isGenerated && asked.target !== null && (statusCode === 404 || statusCode === 409)) {
        isMissing = true;
        await answer.body.dump();
      } else if (statusCode >= 500 && tried.size < TRIES_MAX && this.#hasOther(tried)) {
        await answer.body.dump();
      } else {
        return await this.#requireTarget(pod, asked, answer);
      }
    }
    if (isMissing && asked.target !== null) throw missing(asked.target, tried.size);
    if (tried.size === 0) throw notReady();
    throw new OpenAiError('pods_lost', `None of ${tried.size} pods answered.`);
  }

  #hasOther(tried: Set<Pod>): boolean {
    return this.#options.fleet.ready().some((pod) => !tried.has(pod));
  }

  /** Null: it gave no answer, and another may. */
  async #askPod(pod: Pod, { path, text, headers, gone }: Asked): Promise<Answer | null> {
    const { dispatcher, silenceMs, log } = this.#options;
    pod.inFlight += 1;
    const leave = () => {
      pod.inFlight -= 1;
    };
    try {
      const answer = await send(pod.url + path, {
        method: 'POST',
        headers: { ...writeTrace(), ...headers },
        body: text,
        dispatcher,
        signal: AbortSignal.any([gone, pod.life]),
        headersTimeout: silenceMs,
        bodyTimeout: silenceMs,
      });
      answer.body.once('close', leave);
      return answer;
    } catch (error) {
      leave();
      if (gone.aborted) throw gone.reason;
      if ((error as Error).name === 'HeadersTimeoutError')
        throw new OpenAiError('pod_silent', `A pod said nothing for ${silenceMs} ms.`);
      log.warn({ pod: pod.url, reason: rootMessage(error) }, 'a pod gave no answer');
      pod.suspect();
      return null;
    }
  }

  async #requireTarget(pod: Pod, { target, isGenerated }: Asked, answer: Answer): Promise<Answer> {
    const { statusCode, headers, body } = answer;
    if (statusCode >= 400 || !isGenerated) return answer;
    const revision = headers[REVISION] ?? null;
    if (statusCode < 300 && revision === (target?.revision ?? null)) return answer;
    body.destroy();
    const expected = target?.revision ?? 'the base';
    this.#options.log.error(
      { pod: pod.url, name: target?.name, expected, revision },
      'a pod answered with another revision',
    );
    throw new OpenAiError(
      'wrong_revision',
      `Expected an answer of ${expected} but a pod's is of ${revision ?? 'the base'}; nothing of it is passed on.`,
    );
  }

  async #targetOf(model: unknown): Promise<Target> {
    const base = await this.#options.baseModel();
    const name = model ?? base;
    if (typeof name !== 'string') throw badRequest('Expected text for model', 'model');
    const version = this.#options.names.find(name);
    if (version !== undefined) return version;
    if (name === base) return null;
    throw modelNotFound(name);
  }
}

function requireObject(body: unknown): Body {
  if (typeof body === 'object' && body !== null && !Array.isArray(body)) return body as Body;
  throw badRequest('Expected a JSON object as the body');
}

/**
 * What a client expects by itself must be what its name stands for. Returns how long it waits for that: a pod that has it
 * not says so at once where nothing is said, and the next is asked.
 */
function requireExpected({ headers }: FastifyRequest, body: Body, target: Version): number {
  const { lora } = parseBody(Expecting, body);
  const expect = readExpect(lora, headers);
  const actual = { digest: target.revision, step: target.step };
  if (expect !== null && !meetsExpectation(actual, expect.revision))
    throw expectationUnmet(target.name, expect.revision, actual);
  return lora.wait_ms ?? readWaitMs(headers) ?? 0;
}

function notForBase(): OpenAiError {
  return badRequest('lora.expect is for adapters, not for the base model', 'lora.expect');
}

/** The header says all of what is expected. */
function asOf({ served }: Version, { lora, ...rest }: Body): Body {
  const others = lora == null ? {} : { lora: { ...lora, expect: null, wait_ms: null } };
  return { ...rest, ...others, model: served };
}

/** A seed of more than 53 bits came as a bigint. */
function write({ seed, ...rest }: Body): string {
  if (seed === undefined) return JSON.stringify(rest);
  const text = typeof seed === 'bigint' ? String(seed) : JSON.stringify(seed);
  const others = JSON.stringify(rest).slice(1, -1);
  return `{${others === '' ? '' : `${others},`}"seed":${text}}`;
}

function missing({ name, revision, step }: Version, tried: number): OpenAiError {
  return new OpenAiError(
    'expectation_unmet',
    `${JSON.stringify(name)} was loaded as revision ${revision} of step ${step}, which none of ${tried} pods has any more.`,
    'model',
  );
}
