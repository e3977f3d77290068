import type { IncomingMessage } from 'node:http';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { LorikeetError } from '../../server/contract/errors.ts';
import { bodyDeadlineMs, type Pace, requireBodySize } from '../../server/transfer/limits.ts';
import type { Clock } from '../kube/clock.ts';

/** Less than this is not worth a block of its own where more may be there already. */
const SMALL_BYTES = 32 << 10;

/** The trainer went away before its last byte: nobody is left to answer. */
export class ClientGone extends Error {
  constructor(cause: unknown) {
    super('The client closed the connection before the end of the body', { cause });
    this.name = 'ClientGone';
  }
}

/** The pace counts the waiting for the client in all; it grants more only where `expect` named many bytes. */
export interface BodyLimits extends Pace {
  maxBytes: number;
  /** With fewer bytes in this time the client is given up, whatever else it may take. */
  windowMs: number;
  windowBytesMin: number;
  /** Ends the reading, with its reason. */
  stopping: AbortSignal;
}

/**
 * The body of a request, chunk by chunk, with an eye on the clock. Only the time spent waiting for the client counts:
 * while pods are slow the socket is not read, and that is not the client's doing.
 */
export class BodyReader {
  receivedBytes = 0;
  readonly #raw: IncomingMessage;
  readonly #limits: BodyLimits;
  readonly #clock: Clock;
  #waitMsMax: number;
  #waitedMs = 0;
  #window = { bytes: 0, waitedMs: 0 };
  #failure: ClientGone | null = null;
  #wake: () => void = () => undefined;

  constructor(raw: IncomingMessage, limits: BodyLimits, clock: Clock) {
    this.#raw = raw;
    this.#limits = limits;
    this.#clock = clock;
    this.#waitMsMax = limits.waitMs;
    const gone = (cause: unknown) => {
      if (!raw.readableEnded) this.#failure ??= new ClientGone(cause);
      this.#wake();
    };
    raw.on('readable', () => this.#wake()).on('end', () => this.#wake());
    raw.on('error', gone).on('close', () => gone(undefined));
  }

  /** Tells how many bytes are to come, which says how long they may take. */
  expect(bytes: number): void {
    this.#waitMsMax = bodyDeadlineMs(bytes, this.#limits);
  }

  /** What has arrived, tiny chunks as one; null at the end. Where something is there, nothing is waited for. */
  async next(): Promise<Buffer | null> {
    this.#limits.stopping.throwIfAborted();
    let block = this.#raw.read() as Buffer | null;
    while (block === null && !this.#raw.readableEnded) {
      await this.#arrival();
      block = this.#raw.read();
    }
    if (block === null) return null;
    this.receivedBytes += block.length;
    this.#window.bytes += block.length;
    requireBodySize(this.receivedBytes, this.#limits.maxBytes);
    if (this.#window.bytes >= this.#limits.windowBytesMin) this.#window = { bytes: 0, waitedMs: 0 };
    return block;
  }

  async #arrival(): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    const startedAt = this.#clock.monotonicMs();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#wake = resolve;
    const windowLeftMs = this.#limits.windowMs - this.#window.waitedMs;
    const leftMs = Math.max(1, Math.min(windowLeftMs, this.#waitMsMax - this.#waitedMs));
    const cancel = this.#clock.after(leftMs, () => reject(tooSlow(this.receivedBytes)));
    const { stopping } = this.#limits;
    const stop = () => reject(stopping.reason);
    stopping.addEventListener('abort', stop, { once: true });
    try {
      await promise;
      // Chunks that came in one piece are told one by one: a turn of the event loop later all of them are there.
      if (this.#raw.readableLength < SMALL_BYTES) await nextTurn();
    } finally {
      cancel();
      stopping.removeEventListener('abort', stop);
      const waitedMs = this.#clock.monotonicMs() - startedAt;
      this.#waitedMs += waitedMs;
      this.#window.waitedMs += waitedMs;
    }
  }
}

function tooSlow(bytes: number): LorikeetError {
  return new LorikeetError('request_timeout', `The body came too slowly: ${bytes} bytes arrived in time`, {
    field: 'body',
    actual: bytes,
  });
}
