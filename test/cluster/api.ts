import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { Agent, request } from 'undici';
import { parse } from 'yaml';
import { z } from 'zod';

const CALL_TIMEOUT_MS = 10_000;

/** The one shape of kubeconfig that control-plane.ts writes. */
const Kubeconfig = z.object({
  clusters: z.tuple([
    z.object({ cluster: z.object({ server: z.string(), 'certificate-authority-data': z.string() }) }),
  ]),
  users: z.tuple([z.object({ user: z.object({ token: z.string() }) })]),
});

export class ApiCallError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface WatchEvent {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  object: unknown;
}

type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** A client of the API server that shares no code with the operator, so that one fault cannot hide in both. */
export class Api {
  readonly url: string;
  readonly ca: Buffer;
  readonly #token: string;
  readonly #agent: Agent;

  constructor({ url, ca, token }: { url: string; ca: Buffer; token: string }) {
    this.url = url;
    this.ca = ca;
    this.#token = token;
    this.#agent = new Agent({ connect: { ca }, connections: 32, bodyTimeout: 0 });
  }

  static async fromKubeconfig(path: string): Promise<Api> {
    const { clusters, users } = Kubeconfig.parse(parse(await readFile(path, 'utf8')));
    const { server, 'certificate-authority-data': ca } = clusters[0].cluster;
    return new Api({ url: server, ca: Buffer.from(ca, 'base64'), token: users[0].user.token });
  }

  get(path: string): Promise<unknown> {
    return this.call('GET', path);
  }

  /** PATCH bodies are JSON merge patches. */
  async call(method: Method, path: string, body?: unknown): Promise<unknown> {
    const text = await this.#send(method, path, body);
    return text === '' ? null : JSON.parse(text);
  }

  /** What is no JSON. */
  text(path: string): Promise<string> {
    return this.#send('GET', path);
  }

  async #send(method: Method, path: string, body?: unknown): Promise<string> {
    const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
    const response = await request(this.url + path, {
      method,
      dispatcher: this.#agent,
      headers: { authorization: `Bearer ${this.#token}`, 'content-type': type },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(CALL_TIMEOUT_MS),
    });
    const text = await response.body.text();
    if (response.statusCode >= 400) throw new ApiCallError(response.statusCode, `${method} ${path}: ${text}`);
    return text;
  }

  /** Ends when the API server ends it or the signal is aborted. */
  async *watch(path: string, signal: AbortSignal): AsyncIterable<WatchEvent> {
    const response = await request(this.url + path, {
      dispatcher: this.#agent,
      headers: { authorization: `Bearer ${this.#token}` },
      signal,
    });
    if (response.statusCode >= 400) throw new ApiCallError(response.statusCode, await response.body.text());
    for await (const line of createInterface({ input: response.body })) {
      if (line !== '') yield JSON.parse(line) as WatchEvent;
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

/** True where the API server answered with this status. */
export function isStatus(error: unknown, status: number): boolean {
  return error instanceof ApiCallError && error.status === status;
}
