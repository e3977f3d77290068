import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { FastifyReply } from 'fastify';
import { STALL_MS_MAX } from '../openai/unread.ts';
import type { Sink } from './exchange.ts';

/**
 * A head waits so long for the first bytes: the client that it wakes has nothing to do yet, but may take the processor on
 * which the engine's server is making the prompt ready.
 */
const HEAD_MS = 5;

/** What becomes of an answer on its way. */
export interface Passage {
  /** Of its bytes what can be sent now. */
  rewrite(chunk: Buffer): Buffer | string;
  /** What is held back yet when it ends. */
  rest(): Buffer | string;
  /** Told after the first bytes. */
  onFirst(): void;
  /** The end of an answer that breaks off; null: it is cut off, for its length or end says that it was not all. */
  brokenOff: string | null;
}

/** An answer that goes to the client as it comes: its head at once or nearly so, and no more at a time than the client takes. */
export class ClientStream implements Sink {
  readonly #raw: ServerResponse;
  readonly #passage: Passage;
  readonly #headTimer: NodeJS.Timeout;
  #hasBegun = false;

  constructor(
    reply: FastifyReply,
    { status, headers }: { status: number; headers: OutgoingHttpHeaders },
    passage: Passage,
  ) {
    reply.hijack();
    this.#raw = reply.raw;
    this.#passage = passage;
    const all = { ...reply.getHeaders(), ...headers } as OutgoingHttpHeaders;
    this.#raw.writeHead(status, all);
    this.#headTimer = setTimeout(() => this.#raw.flushHeaders(), HEAD_MS);
  }

  write(chunk: Buffer, resume: () => void): boolean {
    const bytes = this.#passage.rewrite(chunk);
    if (bytes.length === 0) return true;
    const isTaken = this.#raw.write(bytes);
    if (!this.#hasBegun) {
      this.#hasBegun = true;
      clearTimeout(this.#headTimer);
      this.#passage.onFirst();
    }
    if (!isTaken) this.#await(resume);
    return isTaken;
  }

  /** The client reads in time, or is cut off. */
  #await(resume: () => void): void {
    const raw = this.#raw;
    const over = () => {
      clearTimeout(timer);
      raw.off('drain', over).off('close', over);
      resume();
    };
    const timer = setTimeout(() => raw.destroy(), STALL_MS_MAX);
    raw.on('drain', over).on('close', over);
  }

  end(): void {
    clearTimeout(this.#headTimer);
    this.#raw.end(this.#passage.rest());
  }

  breakOff(): void {
    clearTimeout(this.#headTimer);
    const { brokenOff } = this.#passage;
    if (brokenOff === null) this.#raw.destroy();
    else this.#raw.end(brokenOff);
  }
}
