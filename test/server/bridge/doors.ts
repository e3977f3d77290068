import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Answers a request itself, or lets it pass. */
export type Meddle = (
  request: IncomingMessage,
  response: ServerResponse,
  pass: () => Promise<void>,
) => unknown;

export interface Door {
  url: string;
  /** Paths of all requests, in order. */
  asked: string[];
  close(): Promise<void>;
}

/** In front of one of a pod's two APIs. */
export async function door(
  behind: string,
  meddle: Meddle = (_request, _response, pass) => pass(),
): Promise<Door> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    void meddle(request, response, () => passOn(behind, request, response));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    close: async () => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}

export async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

async function passOn(behind: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await bodyOf(request);
  const { host: _host, connection: _connection, 'content-length': _length, ...headers } = request.headers;
  const answer = await fetch(behind + request.url, {
    method: request.method ?? 'GET',
    headers: headers as Record<string, string>,
    ...(body.length === 0 ? {} : { body }),
  });
  for (const [name, value] of answer.headers) if (!response.hasHeader(name)) response.setHeader(name, value);
  response.removeHeader('content-length');
  response.statusCode = answer.status;
  response.end(Buffer.from(await answer.arrayBuffer()));
}
