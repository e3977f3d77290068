import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { Agent, request } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { buffer } from 'node:stream/consumers';

export interface Upstream {
  /** Of the API server. */
  url: string;
  ca: Buffer;
}

export interface ApiCall {
  method: string;
  /** Its path, with the query. */
  url: string;
  /** Plural of the resource, with its subresource where there is one. */
  kind: string;
  isWatch: boolean;
  /** It lists a whole kind, and does not watch it. */
  isList: boolean;
  body: Buffer;
}

export interface Answer {
  status: number;
  headers?: Record<string, string>;
  body: Buffer | string;
}

/** What a plan does with one call: lets it go on, answers it itself, cuts it off, or never answers. */
export type Before = 'pass' | 'reset' | 'silence' | Answer;

/** Hooks that see all between one operator and the API server; each of them may change it. */
export interface ApiPlan {
  before?(call: ApiCall): Before | Promise<Before>;
  /** The call has been carried out; what is returned goes to the operator. */
  after?(call: ApiCall, answer: Answer): Answer | 'reset' | Promise<Answer | 'reset'>;
  /** One line of a watch; the next one is not looked at before this returns. */
  event?(call: ApiCall, line: string, stream: EventStream): void | Promise<void>;
}

export interface EventStream {
  send(line: string): void;
  cut(): void;
}

/** Stands between one operator and the real API server, for as long as that operator lives. */
export class ApiProxy {
  readonly #upstream: Upstream;
  readonly #plan: ApiPlan;
  readonly #agent: Agent;
  readonly #server = createServer((from, to) => void this.#serve(from, to));
  readonly #sockets = new Set<Socket>();

  private constructor(upstream: Upstream, plan: ApiPlan) {
    this.#upstream = upstream;
    this.#plan = plan;
    this.#agent = new Agent({ keepAlive: true, ca: upstream.ca });
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
  }

  static async start(upstream: Upstream, plan: ApiPlan): Promise<ApiProxy> {
    const proxy = new ApiProxy(upstream, plan);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Ends all that is under way, at once and for good. */
  cut(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    this.#agent.destroy();
  }

  async #serve(from: IncomingMessage, to: ServerResponse): Promise<void> {
    try {
      await this.#forward(from, to);
    } catch {
      // Either side went away amid the call: the other one is told in the same way.
      to.destroy();
    }
  }

  async #forward(from: IncomingMessage, to: ServerResponse): Promise<void> {
    const body = await buffer(from);
    const call = { ...callOf(from), body };
    const before = (await this.#plan.before?.(call)) ?? 'pass';
    if (before === 'silence') return;
    if (before === 'reset') return void to.destroy();
    if (before !== 'pass') return send(to, before);
    const reply = await this.#ask(from, body, to);
    const status = reply.statusCode ?? 502;
    if (call.isWatch && status === 200) return await this.#watch(call, reply, to);
    const answer = { status, headers: contentTypeOf(reply), body: await buffer(reply) };
    const after = (await this.#plan.after?.(call, answer)) ?? answer;
    if (after === 'reset') to.destroy();
    else send(to, after);
  }

  async #ask(from: IncomingMessage, body: Buffer, to: ServerResponse): Promise<IncomingMessage> {
    const { host: _host, connection: _connection, ...headers } = from.headers;
    const onward = request(this.#upstream.url + from.url, {
      method: from.method,
      headers,
      agent: this.#agent,
    });
    to.once('close', () => onward.destroy());
    onward.end(body);
    const [reply] = (await once(onward, 'response')) as [IncomingMessage];
    return reply;
  }

  async #watch(call: ApiCall, reply: IncomingMessage, to: ServerResponse): Promise<void> {
    to.writeHead(200, contentTypeOf(reply));
    to.flushHeaders();
    const stream: EventStream = {
      send: (line) => void (to.writable && to.write(`${line}\n`)),
      cut: () => void to.destroy(),
    };
    for await (const line of createInterface({ input: reply })) {
      if (this.#plan.event === undefined) stream.send(line);
      else await this.#plan.event(call, line, stream);
    }
    to.end();
  }
}

function callOf(from: IncomingMessage): Omit<ApiCall, 'body'> {
  const url = from.url ?? '';
  const [path = '', query = ''] = url.split('?');
  const method = from.method ?? '';
  const [, kind = '', name, subresource] =
    /\/v[0-9a-z]+\/(?:namespaces\/[^/]+\/)?([a-z]+)(?:\/([^/]+))?(?:\/([^/]+))?$/.exec(path) ?? [];
  const isWatch = query.includes('watch=true');
  return {
    ...{ method, url, isWatch },
    kind: subresource === undefined ? kind : `${kind}/${subresource}`,
    isList: method === 'GET' && name === undefined && !isWatch,
  };
}

function contentTypeOf(reply: IncomingMessage): Record<string, string> {
  return { 'content-type': reply.headers['content-type'] ?? 'application/json' };
}

function send(to: ServerResponse, { status, headers, body }: Answer): void {
  to.writeHead(status, headers).end(body);
}
