import { LorikeetError } from '../../server/contract/errors.ts';

interface Waiter {
  start(): void;
  supersede(): void;
}

/**
 * One push per adapter at a time. One more may wait, its body unread; a still newer one takes its place, and the one
 * that waited is answered `superseded`. A push that runs is never cut off, so that some push always gets through.
 */
export class Turns {
  readonly #running = new Set<string>();
  readonly #waiting = new Map<string, Waiter>();

  /** Resolves with the function that ends the turn. */
  async take(key: string, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#running.has(key)) await this.#wait(key, signal);
    this.#running.add(key);
    return () => this.#leave(key);
  }

  #wait(key: string, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const settle = (act: () => void) => {
      signal.removeEventListener('abort', abort);
      if (this.#waiting.get(key) === waiter) this.#waiting.delete(key);
      act();
    };
    const abort = () => settle(() => reject(signal.reason));
    const waiter: Waiter = {
      start: () => settle(resolve),
      supersede: () => settle(() => reject(superseded())),
    };
    this.#waiting.get(key)?.supersede();
    this.#waiting.set(key, waiter);
    signal.addEventListener('abort', abort, { once: true });
    return promise;
  }

  #leave(key: string): void {
    const next = this.#waiting.get(key);
    if (next) next.start();
    else this.#running.delete(key);
  }
}

/** Bounds what all pushes together may hold. */
export class Budget {
  readonly #pushesMax: number;
  readonly #bytesMax: number;
  readonly #onChange: (pushes: number, bytes: number) => void;
  #pushes = 0;
  #bytes = 0;

  constructor(
    { pushesMax, bytesMax }: { pushesMax: number; bytesMax: number },
    onChange: (pushes: number, bytes: number) => void,
  ) {
    this.#pushesMax = pushesMax;
    this.#bytesMax = bytesMax;
    this.#onChange = onChange;
  }

  /** Returns the function that gives back. One push alone may be larger than the whole budget. */
  take(bytes: number): () => void {
    const isFull = this.#pushes >= this.#pushesMax || this.#bytes + bytes > this.#bytesMax;
    if (this.#pushes > 0 && isFull) {
      throw new LorikeetError('too_many_requests', 'The operator is busy with other pushes; try again.', {
        expected: { pushes: this.#pushesMax, bytes: this.#bytesMax },
        actual: { pushes: this.#pushes, bytes: this.#bytes },
      });
    }
    this.#add(1, bytes);
    return () => this.#add(-1, -bytes);
  }

  #add(pushes: number, bytes: number): void {
    this.#pushes += pushes;
    this.#bytes += bytes;
    this.#onChange(this.#pushes, this.#bytes);
  }
}

function superseded(): LorikeetError {
  return new LorikeetError(
    'superseded',
    'A newer push of this adapter came while this one waited for its turn.',
  );
}
