import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/**
 * What happens to one request. Its answer stalls or breaks off after so many bytes of its body; or it goes no further, and
 * has silence, a cut connection or another answer; or it is carried out, and the connection is cut instead of an answer.
 */
export type Fault =
  | { kind: 'stall' | 'cut'; afterBytes: number }
  | { kind: 'silence' | 'reset' | 'lostReply' }
  | { kind: 'answer'; status: number }
  | null;

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
  /** Those that a request has met. */
  readonly met: Fault[] = [];
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
    if (fault !== null && !isAmid(fault)) this.met.push(fault);
    if (fault?.kind === 'silence') return;
    if (fault?.kind === 'reset') return void to.destroy();
    if (fault?.kind === 'answer')
      return void from.resume().once('end', () => to.writeHead(fault.status).end());
    const bytesMax = fault !== null && isAmid(fault) ? fault.afterBytes : Number.POSITIVE_INFINITY;
    const { hostname, port } = this.#target;
    // The host header stays as it was: it is signed.
    const options = { hostname, port, method: seen.method, path: seen.url, headers: from.headers };
    const onward = request(options, async (reply) => {
      if (fault?.kind === 'lostReply') return void to.destroy();
      to.writeHead(reply.statusCode ?? 502, reply.headers);
      let passed = 0;
      for await (const chunk of reply as AsyncIterable<Buffer>) {
        const part = chunk.subarray(0, Math.max(0, bytesMax - passed));
        this.bytes += part.length;
        passed += part.length;
        if (part.length > 0) to.write(part);
        if (part.length < chunk.length) {
          this.met.push(fault);
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

function isAmid(fault: NonNullable<Fault>): fault is Extract<Fault, { afterBytes: number }> {
  return 'afterBytes' in fault;
}
