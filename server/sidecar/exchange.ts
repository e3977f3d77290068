import type { IncomingHttpHeaders } from 'node:http';
import type { Dispatcher } from 'undici';

/** Of an answer that begins. */
export interface Head {
  status: number;
  headers: IncomingHttpHeaders;
}

/** Takes an answer as it comes. */
export interface Sink {
  /** False: it takes more only after `resume` has been called, once. */
  write(chunk: Buffer, resume: () => void): boolean;
  end(): void;
  /** There comes no more, and this was not all. */
  breakOff(): void;
}

/**
 * One request to the engine and its answer, by undici's dispatch: what it brings is handed on in the turn of the event loop
 * in which it comes. Resolves when `open`'s sink has all of it; rejects when the answer does not come, or not to its end.
 */
export function exchange<S extends Sink>(
  dispatcher: Dispatcher,
  request: Dispatcher.DispatchOptions,
  signal: AbortSignal,
  open: (head: Head) => S,
): Promise<S> {
  const { promise, resolve, reject } = Promise.withResolvers<S>();
  let sink: S | null = null;
  let leave: (() => void) | null = null;
  const over = () => {
    if (leave !== null) signal.removeEventListener('abort', leave);
  };
  dispatcher.dispatch(request, {
    onRequestStart(controller) {
      if (signal.aborted) return controller.abort(signal.reason);
      leave = () => controller.abort(signal.reason);
      signal.addEventListener('abort', leave, { once: true });
    },
    onResponseStart(_controller, status, headers) {
      if (status >= 200) sink = open({ status, headers });
    },
    onResponseData(controller, chunk) {
      if (sink?.write(chunk, () => controller.resume()) === false) controller.pause();
    },
    onResponseEnd() {
      over();
      sink?.end();
      resolve(sink as S);
    },
    onResponseError(_controller, error) {
      over();
      sink?.breakOff();
      reject(error);
    },
  });
  return promise;
}

/** An answer that is held whole. */
export class Whole implements Sink {
  readonly head: Head;
  readonly #bytesMax: number;
  readonly #chunks: Buffer[] = [];
  #length = 0;

  constructor(head: Head, bytesMax: number) {
    this.head = head;
    this.#bytesMax = bytesMax;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  write(chunk: Buffer): boolean {
    this.#length += chunk.length;
    if (this.#length > this.#bytesMax) throw new Error(`the answer is longer than ${this.#bytesMax} bytes`);
    this.#chunks.push(chunk);
    return true;
  }

  end(): void {}

  breakOff(): void {}
}
