import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Pool } from 'undici';
import type { Recorder } from './recorder.ts';

const BODY_BYTES_MAX = 16 << 20;
/** Each connection's own. */
const NOT_PASSED_ON = new Set([
  'connection',
  'keep-alive',
  'transfer-encoding',
  'content-length',
  'host',
  'expect',
]);

/** Stands between a trainer and a server, passes on what both say, and tells the recorder. */
export class RecordingProxy {
  readonly #server: Server;
  readonly #upstream: Pool;
  readonly #recorder: Recorder;

  static async start(upstream: string, recorder: Recorder): Promise<RecordingProxy> {
    const proxy = new RecordingProxy(upstream, recorder);
    await new Promise<void>((done) => proxy.#server.listen(0, '127.0.0.1', done));
    return proxy;
  }

  private constructor(upstream: string, recorder: Recorder) {
    this.#upstream = new Pool(upstream);
    this.#recorder = recorder;
    this.#server = createServer((request, response) => {
      this.#pass(request, response).catch((error) => {
        // A trainer that leaves ends its requests; whoever still listens learns why.
        if (!response.headersSent) response.writeHead(502, { 'content-type': 'text/plain' });
        response.end(String(error));
      });
    });
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
    await this.#upstream.destroy();
  }

  async #pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const left = new AbortController();
    response.once('close', () => left.abort());
    const { method = 'GET', url: path = '/' } = request;
    const sent = await readAll(request);
    const told = this.#recorder.asked(path, sent);
    const startedMs = performance.now();
    const reply = await this.#upstream.request({
      path,
      method,
      headers: Object.fromEntries(passedOn(request.headers)),
      body: sent === '' ? null : sent,
      signal: left.signal,
    });
    const body = await readAll(reply.body);
    const revision = reply.headers['x-lora-revision'];
    told({
      status: reply.statusCode,
      revision: typeof revision === 'string' ? revision : null,
      body,
      ms: performance.now() - startedMs,
    });
    response.writeHead(reply.statusCode, Object.fromEntries(passedOn(reply.headers)));
    response.end(body);
  }
}

function passedOn<T>(headers: Record<string, T | undefined>): [string, T][] {
  return Object.entries(headers).flatMap(([name, value]) =>
    value === undefined || NOT_PASSED_ON.has(name) ? [] : [[name, value] as [string, T]],
  );
}

async function readAll(body: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new Error(`Expected at most ${BODY_BYTES_MAX} bytes in a body`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
