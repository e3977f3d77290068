import { Agent, type Dispatcher, request } from 'undici';

/** Whom the suite trusts, and what it shows. */
export interface Tls {
  ca?: string;
  cert?: string;
  key?: string;
}

export interface Answer {
  /** For messages: `PUT /v1/adapters/sql`. */
  call: string;
  status: number;
  headers: Record<string, string | undefined>;
  bytes: Buffer;
  text: string;
  /** Undefined where it is none. */
  json: unknown;
}

export interface Sent {
  headers?: Record<string, string>;
  /** An object goes as JSON; what is iterated goes in chunks. */
  body?: Buffer | string | object | AsyncIterable<Uint8Array>;
  signal?: AbortSignal;
}

const CONNECT_MS = 5_000;
const SILENCE_MS = 60_000;
const ANSWER_MS_MAX = 120_000;
const ANSWER_BYTES_MAX = 256 << 20;

/** Calls one of a server's two APIs; `token` null: without any. */
export class Client {
  readonly url: string;
  readonly tls: Tls;
  readonly authorization: Record<string, string>;
  readonly #agent: Agent;

  constructor(url: string, { token, tls = {} }: { token: string | null; tls?: Tls }) {
    this.url = url.replace(/\/+$/, '');
    this.tls = tls;
    this.authorization = token === null ? {} : { authorization: `Bearer ${token}` };
    this.#agent = new Agent({
      connect: { timeout: CONNECT_MS, ...tls },
      headersTimeout: SILENCE_MS,
      bodyTimeout: SILENCE_MS,
      maxResponseSize: ANSWER_BYTES_MAX,
    });
  }

  async call(method: string, path: string, sent: Sent = {}): Promise<Answer> {
    const signal = AbortSignal.timeout(ANSWER_MS_MAX);
    const { statusCode, headers, body } = await this.open(method, path, { ...sent, signal });
    // Has no end to wait for.
    if (headers['content-type']?.includes('text/event-stream')) {
      body.on('error', () => {}).destroy();
      return answerOf(`${method} ${path}`, statusCode, { headers, bytes: Buffer.from('a stream of events') });
    }
    return answerOf(`${method} ${path}`, statusCode, { headers, bytes: Buffer.from(await body.bytes()) });
  }

  /** Its body is the caller's to read or to destroy. */
  async open(
    method: string,
    path: string,
    { headers = {}, body, signal }: Sent = {},
  ): Promise<Dispatcher.ResponseData> {
    const isJson = typeof body === 'object' && !Buffer.isBuffer(body) && !(Symbol.asyncIterator in body);
    return request(this.url + path, {
      method: method as Dispatcher.HttpMethod,
      headers: {
        ...this.authorization,
        ...(isJson && { 'content-type': 'application/json' }),
        ...headers,
      },
      body: (isJson ? JSON.stringify(body) : body) as Buffer,
      dispatcher: this.#agent,
      signal: signal ?? null,
    });
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

export function answerOf(
  call: string,
  status: number,
  { headers, bytes }: { headers: Record<string, string | string[] | undefined>; bytes: Buffer },
): Answer {
  const text = bytes.toString('utf8');
  const flat = Object.entries(headers).map(([name, value]) => [name, value?.toString()]);
  return { call, status, headers: Object.fromEntries(flat), bytes, text, json: jsonOf(text) };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
