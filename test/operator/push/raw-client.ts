import { connect, type Socket } from 'node:net';
import { TOKENS } from './fake-reviews.ts';

export const PATH = '/v1/namespaces/team-a/adapters/sql/revisions';

export interface RawReply {
  status: number;
  headers: Record<string, string>;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into replies of many shapes.
  body: any;
}

/** A client that says exactly what it is told, on a socket of its own. */
export class RawClient {
  readonly socket: Socket;
  #text = '';
  #ended = false;
  #wake: () => void = () => undefined;

  constructor(port: number) {
    this.socket = connect(port, '127.0.0.1');
    this.socket.on('data', (chunk) => {
      this.#text += chunk.toString('latin1');
      this.#wake();
    });
    const end = () => {
      this.#ended = true;
      this.#wake();
    };
    this.socket.on('end', end).on('close', end).on('error', end);
  }

  send(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  /** A PUT's head, with a token and a config unless told otherwise (null leaves a header out). */
  head(headers: Record<string, string | number | null> = {}, { path = PATH, method = 'PUT' } = {}): void {
    const all = { host: 'operator', authorization: `Bearer ${TOKENS.trainer}`, ...headers };
    const lines = Object.entries(all).filter(([, value]) => value !== null);
    this.send(
      `${method} ${path} HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`,
    );
  }

  /** The next final response, interim ones skipped; null where the connection ended without one. */
  async reply(): Promise<RawReply | null> {
    for (;;) {
      const parsed = this.#parse();
      if (parsed === 'interim') continue;
      if (parsed !== null) return parsed;
      if (this.#ended) return null;
      await this.#more();
    }
  }

  /** Whether the server has said `100 Continue`. */
  async continued(): Promise<boolean> {
    while (!this.#text.includes('\r\n\r\n') && !this.#ended) await this.#more();
    return this.#text.startsWith('HTTP/1.1 100');
  }

  async ended(): Promise<void> {
    while (!this.#ended) await this.#more();
  }

  close(): void {
    this.socket.destroy();
  }

  #more(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    return promise;
  }

  #parse(): RawReply | 'interim' | null {
    const end = this.#text.indexOf('\r\n\r\n');
    if (end < 0) return null;
    const [first = '', ...lines] = this.#text.slice(0, end).split('\r\n');
    const status = Number(first.split(' ')[1]);
    const rest = this.#text.slice(end + 4);
    if (status === 100) {
      this.#text = rest;
      return 'interim';
    }
    const headers = Object.fromEntries(
      lines.map((line) => [
        line.slice(0, line.indexOf(':')).toLowerCase(),
        line.slice(line.indexOf(':') + 1).trim(),
      ]),
    );
    const length = Number(headers['content-length'] ?? 0);
    if (rest.length < length) return null;
    this.#text = rest.slice(length);
    const text = Buffer.from(rest.slice(0, length), 'latin1').toString('utf8');
    return { status, headers, body: text === '' ? null : JSON.parse(text) };
  }
}
