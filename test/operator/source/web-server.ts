import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Answers a GET or HEAD as a file server that knows ranges, or none. */
export function sendFile(
  request: IncomingMessage,
  response: ServerResponse,
  { bytes, headers, ranges = true }: { bytes: Buffer; headers: Record<string, string>; ranges?: boolean },
): void {
  const [, begin, end] = /^bytes=(\d+)-(\d+)$/.exec((ranges && request.headers.range) || '') ?? [];
  const part = begin === undefined ? bytes : bytes.subarray(Number(begin), Number(end) + 1);
  const contentRange = `bytes ${begin}-${Number(begin) + part.length - 1}/${bytes.length}`;
  response.writeHead(begin === undefined || request.method === 'HEAD' ? 200 : 206, {
    ...headers,
    ...(ranges && { 'accept-ranges': 'bytes' }),
    ...(begin !== undefined && request.method === 'GET' && { 'content-range': contentRange }),
    'content-length': request.method === 'HEAD' ? bytes.length : part.length,
  });
  response.end(request.method === 'HEAD' ? undefined : part);
}

/** A server of a test's own; `seen` is what it was asked. */
export class WebServer {
  readonly seen: { method: string; url: string; headers: IncomingMessage['headers'] }[] = [];
  /** What it does with each request; tests put their own in its place. */
  answer: RequestListener = (_request, response) => void response.writeHead(404).end();
  readonly #server = createServer((request, response) => {
    this.seen.push({ method: request.method ?? '', url: request.url ?? '', headers: request.headers });
    this.answer(request, response);
  });

  static async start(): Promise<WebServer> {
    const server = new WebServer();
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
