import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What happens to the answer of one request: after so many bytes of its body it stalls or breaks off. */
export type Fault = { kind: 'stall' | 'cut'; afterBytes: number } | null;

export interface SeenRequest {
  method: string;
  url: string;
  range: string | undefined;
  headers: IncomingMessage['headers'];
}

/** Stands between the operator and an object store. */
export class FaultProxy {
  readonly seen: SeenRequest[] = [];
  /** Asked for each request, before it goes on; may change the world first. */
  fault: (request: SeenRequest, count: number) => Fault | Promise<Fault> = () => null;
  /** Body bytes handed to the operator. */
  bytes = 0;
  readonly #server = createServer((from, to) => void this.#forward(from, to));
  readonly #target: URL;

  constructor(endpoint: string) {
    this.#target = new URL(endpoint);
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #forward(from: IncomingMessage, to: ServerResponse): Promise<void> {
    const seen = {
      method: from.method ?? '',
      url: from.url ?? '',
      range: from.headers.range,
      headers: from.headers,
    };
    this.seen.push(seen);
    const fault = await this.fault(seen, this.seen.length);
    const { hostname, port } = this.#target;
    // The host header stays as it was: it is signed.
    const options = { hostname, port, method: seen.method, path: seen.url, headers: from.headers };
    const onward = request(options, async (reply) => {
      to.writeHead(reply.statusCode ?? 502, reply.headers);
      let passed = 0;
      for await (const chunk of reply as AsyncIterable<Buffer>) {
        const rest = fault === null ? chunk.length : Math.max(0, fault.afterBytes - passed);
        const part = chunk.subarray(0, rest);
        this.bytes += part.length;
        passed += part.length;
        if (part.length > 0) to.write(part);
        if (part.length < chunk.length) {
          if (fault?.kind === 'cut') setImmediate(() => to.destroy());
          return;
        }
      }
      to.end();
    });
    onward.on('error', () => to.destroy());
    from.pipe(onward);
  }
}
