import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { Credentials } from '../../../operator/kube/credentials.ts';

export interface Received {
  method: string;
  path: string;
  query: URLSearchParams;
  headers: IncomingMessage['headers'];
  // biome-ignore lint/suspicious/noExplicitAny: tests look into bodies as they are
  body: any;
}

/** What the server does with one request: a JSON reply, or something worse. */
export type Reply =
  | { status: number; body?: unknown; headers?: Record<string, string> }
  | { raw: string }
  | { stream: (response: ServerResponse) => void }
  | 'reset'
  | 'silence';

export type Script = (request: Received) => Reply;

/** An HTTP server on the loopback that does what a test says and keeps what it was sent. */
export class ScriptedServer {
  readonly requests: Received[] = [];
  connections = 0;
  script: Script;
  readonly #server: Server;

  private constructor(server: Server, script: Script) {
    this.#server = server;
    this.script = script;
  }

  static async start(script: Script = () => ({ status: 404 })): Promise<ScriptedServer> {
    const server = createServer();
    const scripted = new ScriptedServer(server, script);
    server.on('connection', () => {
      scripted.connections += 1;
    });
    server.on('request', (request, response) => {
      scripted.#answer(request, response).catch((error: unknown) => response.destroy(error as Error));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return scripted;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get credentials(): Credentials {
    return { server: this.url, authorization: async () => null, tls: async () => NO_TLS };
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    const raw = await text(request);
    const received: Received = {
      method: request.method ?? '',
      path: url.pathname,
      query: url.searchParams,
      headers: request.headers,
      body: raw === '' ? undefined : JSON.parse(raw),
    };
    this.requests.push(received);
    const reply = this.script(received);
    if (reply === 'reset') response.destroy();
    else if (reply === 'silence') return;
    else if ('stream' in reply) reply.stream(response);
    else if ('raw' in reply) response.end(reply.raw);
    else response.writeHead(reply.status, reply.headers).end(JSON.stringify(reply.body ?? {}));
  }
}

const NO_TLS = {};
