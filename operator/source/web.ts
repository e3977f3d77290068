import {
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
} from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { rootCertificates } from 'node:tls';
import { type AddressGuard, portOf } from './address-guard.ts';
import { noAnswerOf } from './no-answer.ts';
import type { Span, StoredObject } from './port.ts';
import { Retryable, type SourceError, Terminal } from './types.ts';

export interface WebRequest {
  method: 'GET' | 'HEAD' | 'PUT';
  url: URL;
  headers?: Record<string, string>;
  /** As long as `content-length` says. It can be sent once only: `follow` is nowhere. */
  body?: Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
  /** For people: without query and credentials. */
  name: string;
  /** `origin`: a redirect to another host is an answer. */
  follow: 'anywhere' | 'origin' | 'nowhere';
}

export interface WebAnswer {
  status: number;
  /** Of who answered, after redirects. */
  origin: string;
  headers: IncomingHttpHeaders;
  body: IncomingMessage;
}

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const HOPS_MAX = 5;
const SOCKETS_MAX = 8;

/**
 * HTTP for one resolve or one fetch. Each hop of a redirect is held against the guard like the first, never goes from
 * https to http, and carries credentials to no other origin.
 */
export class Web {
  readonly #guard: AddressGuard;
  readonly #http = new HttpAgent({ keepAlive: true, maxSockets: SOCKETS_MAX });
  readonly #https: HttpsAgent;

  /** `ca`: trusted besides those that every program trusts. */
  constructor(guard: AddressGuard, ca: string | null) {
    this.#guard = guard;
    const trust = ca === null ? {} : { ca: [...rootCertificates, ca] };
    this.#https = new HttpsAgent({ keepAlive: true, maxSockets: SOCKETS_MAX, ...trust });
  }

  /** Whatever is answered but a redirect that is followed; rejects with a SourceError, or the reason of the signal. */
  async send(request: WebRequest, signal: AbortSignal): Promise<WebAnswer> {
    let hop = request;
    for (let hops = 0; hops <= HOPS_MAX; hops += 1) {
      const answer = await this.#ask(hop, signal);
      const next = nextHop(hop, answer);
      if (next === null) return answer;
      answer.body.destroy();
      hop = next;
    }
    throw new Terminal('SourceInvalid', `More than ${HOPS_MAX} redirects: ${request.name}.`);
  }

  close(): void {
    this.#http.destroy();
    this.#https.destroy();
  }

  async #ask(
    { method, url, headers, body: given, name }: WebRequest,
    signal: AbortSignal,
  ): Promise<WebAnswer> {
    try {
      await this.#guard.requireAllowed(url);
      signal.throwIfAborted();
      const isSecure = url.protocol === 'https:';
      const send = isSecure ? httpsRequest : httpRequest;
      const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
      const sent = send(url.href, {
        method,
        headers: { 'user-agent': 'lorikeet-operator', 'accept-encoding': 'identity', ...headers },
        agent: isSecure ? this.#https : this.#http,
        lookup: this.#guard.lookupFor(portOf(url)),
        signal,
      });
      sent.on('response', resolve).on('error', reject);
      if (given === undefined) sent.end();
      else pipeline(Readable.from(given), sent).catch(reject);
      const body = await promise;
      if (method === 'HEAD') body.resume();
      return { status: body.statusCode ?? 0, origin: url.origin, headers: body.headers, body };
    } catch (error) {
      throw signal.aborted ? signal.reason : noAnswerOf(error, name);
    }
  }
}

function nextHop(request: WebRequest, { status, headers }: WebAnswer): WebRequest | null {
  const { url, name, follow } = request;
  const { location } = headers;
  if (!REDIRECTS.has(status) || follow === 'nowhere' || location === undefined) return null;
  if (!URL.canParse(location, url.href))
    throw new Terminal('SourceInvalid', `A redirect to no URL: ${name}.`);
  const next = new URL(location, url);
  if (next.origin === url.origin) return { ...request, url: next };
  if (follow === 'origin') return null;
  const isWeb = next.protocol === 'https:' || (next.protocol === 'http:' && url.protocol === 'http:');
  if (!isWeb) throw new Terminal('SourceInvalid', `A redirect to something else than https: ${name}.`);
  const { authorization: _, ...headersElsewhere } = request.headers ?? {};
  return { ...request, url: next, headers: headersElsewhere };
}

/** What an answer that is none of 2xx means; `way` is what to do where access is denied. */
export function failureOfStatus(status: number, name: string, way = ''): SourceError {
  switch (true) {
    case status === 404 || status === 410:
      return new Retryable('SourceNotFound', `There is no ${name}.`);
    case status === 401 || status === 403:
      return new Retryable(
        'SourceAccessDenied',
        `The source denies access (${status}) to ${name}.${way && ` ${way}`}`,
      );
    case status === 412:
      return new Retryable('SourceChanged', `The object was overwritten while it was read: ${name}.`);
    case status === 416:
      return new Terminal('AdapterMalformed', `The object is empty or shorter than it was: ${name}.`);
    case status === 408 || status === 429 || status >= 500:
      return new Retryable('SourceUnreachable', `The source fails (${status}): ${name}.`);
    default:
      return new Terminal('SourceInvalid', `The source refuses the request (${status}): ${name}.`);
  }
}

export function rangeHeader({ begin, end }: Span): { range: string } {
  return { range: `bytes=${begin}-${end - 1}` };
}

/** The body of an answer that holds just the span, which is all of the object where the store knows no ranges. */
export function bodyOf(
  { status, headers, body }: WebAnswer,
  object: StoredObject,
  span: Span,
  name: string,
): IncomingMessage {
  const { begin, end } = span;
  const isWhole = status === 200 && begin === 0 && end === object.size;
  const isPart = status === 206 && headers['content-range'] === `bytes ${begin}-${end - 1}/${object.size}`;
  if (isWhole || isPart) return body;
  body.destroy();
  if (status < 200 || status > 299) throw failureOfStatus(status, name);
  throw new Terminal('SourceInvalid', `The source does not answer ranges as it was asked: ${name}.`);
}

export function sizeIn(text: string | undefined): number | null {
  return text !== undefined && /^[0-9]{1,15}$/.test(text) ? Number(text) : null;
}
