import type { IncomingMessage } from 'node:http';
import { LorikeetError } from '../../server/contract/errors.ts';
import { bodyDeadlineMs, type Pace, requireBodySize } from '../../server/transfer/limits.ts';
import type { Clock } from '../kube/clock.ts';

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
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #limits: BodyLimits;
  readonly #clock: Clock;
  #waitMsMax: number;
  #waitedMs = 0;
  #window = { bytes: 0, waitedMs: 0 };

  constructor(raw: IncomingMessage, limits: BodyLimits, clock: Clock) {
    this.#chunks = raw[Symbol.asyncIterator]();
    this.#limits = limits;
    this.#clock = clock;
    this.#waitMsMax = limits.waitMs;
  }

  /** Tells how many bytes are to come, which says how long they may take. */
  expect(bytes: number): void {
    this.#waitMsMax = bodyDeadlineMs(bytes, this.#limits);
  }

  /** What has arrived, tiny chunks as one; null at the end. The iterator is never returned early: that would destroy the socket before the refusal is out. */
  async next(): Promise<Buffer | null> {
    const startedAt = this.#clock.monotonicMs();
    const { promise: timeout, reject } = Promise.withResolvers<never>();
    const windowLeftMs = this.#limits.windowMs - this.#window.waitedMs;
    const leftMs = Math.max(1, Math.min(windowLeftMs, this.#waitMsMax - this.#waitedMs));
    const cancel = this.#clock.after(leftMs, () => reject(tooSlow(this.receivedBytes)));
    const { stopping } = this.#limits;
    const stop = () => reject(stopping.reason);
    stopping.addEventListener('abort', stop, { once: true });
    if (stopping.aborted) stop();
    const arriving = this.#chunks.next().catch((error) => {
      throw new ClientGone(error);
    });
    try {
      const result = await Promise.race([arriving, timeout]);
      if (result.done === true) return null;
      this.receivedBytes += result.value.length;
      this.#window.bytes += result.value.length;
      requireBodySize(this.receivedBytes, this.#limits.maxBytes);
      return result.value;
    } finally {
      cancel();
      stopping.removeEventListener('abort', stop);
      this.#count(this.#clock.monotonicMs() - startedAt);
    }
  }

  #count(waitedMs: number): void {
    this.#waitedMs += waitedMs;
    this.#window.waitedMs += waitedMs;
    if (this.#window.bytes >= this.#limits.windowBytesMin) this.#window = { bytes: 0, waitedMs: 0 };
  }
}

function tooSlow(bytes: number): LorikeetError {
  return new LorikeetError('request_timeout', `The body came too slowly: ${bytes} bytes arrived in time`, {
    field: 'body',
    actual: bytes,
  });
}
