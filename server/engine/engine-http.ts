import { Agent, request } from 'undici';
import { EngineRefusal, EngineSilent } from './loader.ts';

const CONNECT_MS = 2_000;
const REPLY_BYTES_MAX = 16 << 20;
const MESSAGE_CHARACTERS_MAX = 500;

export interface EngineHttpOptions {
  /** `http://127.0.0.1:8000` */
  url: string;
  /** Of the engine's API key; null: it has none. */
  token: (() => Promise<string>) | null;
}

export interface EngineCall {
  method: 'GET' | 'POST';
  path: string;
  body?: object;
  signal: AbortSignal;
  /** From the request to the end of the reply. */
  timeoutMs: number;
}

/** Our own calls to an engine in the same pod. */
export class EngineHttp {
  readonly url: string;
  readonly #token: EngineHttpOptions['token'];
  readonly #agent = new Agent({
    connect: { timeout: CONNECT_MS },
    maxResponseSize: REPLY_BYTES_MAX,
  });

  constructor({ url, token }: EngineHttpOptions) {
    this.url = url.replace(/\/+$/, '');
    this.#token = token;
  }

  /** The reply's text; throws EngineSilent or EngineRefusal. */
  async text({ method, path, body, signal, timeoutMs }: EngineCall): Promise<string> {
    const token = await this.#token?.();
    const headers = {
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
    };
    const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    try {
      const reply = await request(this.url + path, {
        method,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        dispatcher: this.#agent,
        signal: limit,
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
      });
      const text = await reply.body.text();
      if (reply.statusCode < 300) return text;
      throw new EngineRefusal(reply.statusCode, messageOf(text));
    } catch (error) {
      if (error instanceof EngineRefusal) throw error;
      signal.throwIfAborted();
      throw new EngineSilent(`${method} ${path}: ${(error as Error).message}`, { cause: error });
    }
  }

  async json(call: EngineCall): Promise<unknown> {
    const text = await this.text(call);
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw new EngineSilent(`${call.method} ${call.path}: the reply is no JSON`, { cause });
    }
  }

  /** Calls the listener when a connection is gone: the engine may be, or was only idle. */
  onDisconnect(listener: () => void): void {
    this.#agent.on('disconnect', listener);
  }

  close(): Promise<void> {
    return this.#agent.destroy();
  }
}

/** vLLM and SGLang put it into one of several places. */
function messageOf(text: string): string {
  const found = messageIn(text) ?? text;
  return found.slice(0, MESSAGE_CHARACTERS_MAX);
}

function messageIn(text: string): string | null {
  try {
    const { error, message, error_message: other, detail } = JSON.parse(text);
    const words = [error?.message, error, message, other, detail].find((item) => typeof item === 'string');
    return words ?? null;
  } catch {
    return null;
  }
}
