import { LorikeetError } from '../../server/contract/errors.ts';

interface Waiter {
  step: number | null;
  start(): void;
  supersede(): void;
}

/**
 * One push per adapter at a time. One more may wait, its body unread: of two, that of the later step, and without
 * steps the one that came later; the other is answered `superseded`. A push that runs is never cut off, so that some push always gets through.
 */
export class Turns {
  readonly #running = new Set<string>();
  readonly #waiting = new Map<string, Waiter>();

  /** Resolves with the function that ends the turn. */
  async take(key: string, step: number | null, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#running.has(key)) await this.#wait(key, step, signal);
    this.#running.add(key);
    return () => this.#leave(key);
  }

  #wait(key: string, step: number | null, signal: AbortSignal): Promise<void> {
    const waiting = this.#waiting.get(key);
    if (isLater(waiting?.step ?? null, step)) throw superseded('A push of a later step waits for its turn.');
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const settle = (act: () => void) => {
      signal.removeEventListener('abort', abort);
      if (this.#waiting.get(key) === waiter) this.#waiting.delete(key);
      act();
    };
    const abort = () => settle(() => reject(signal.reason));
    const waiter: Waiter = {
      step,
      start: () => settle(resolve),
      supersede: () =>
        settle(() =>
          reject(superseded('A newer push of this adapter came while this one waited for its turn.')),
        ),
    };
    waiting?.supersede();
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

interface Held {
  pushes: number;
  bytes: number;
}

/**
 * Bounds what all pushes together may hold. A namespace may hold no more than is left: one alone gets half of the
 * places, each of n gets one part of n + 1, and one part is always there for whoever holds nothing yet.
 */
export class Budget {
  readonly #pushesMax: number;
  readonly #bytesMax: number;
  readonly #onChange: (pushes: number, bytes: number) => void;
  readonly #all: Held = { pushes: 0, bytes: 0 };
  readonly #byNamespace = new Map<string, Held>();

  constructor(
    { pushesMax, bytesMax }: { pushesMax: number; bytesMax: number },
    onChange: (pushes: number, bytes: number) => void,
  ) {
    this.#pushesMax = pushesMax;
    this.#bytesMax = bytesMax;
    this.#onChange = onChange;
  }

  /** Returns the function that gives back. One push alone may be larger than the whole budget. */
  take(namespace: string, bytes: number): () => void {
    const held = this.#byNamespace.get(namespace) ?? { pushes: 0, bytes: 0 };
    const left = { pushes: this.#pushesMax - this.#all.pushes, bytes: this.#bytesMax - this.#all.bytes };
    const fits = left.pushes > held.pushes && left.bytes >= bytes && left.bytes - bytes >= held.bytes;
    if (this.#all.pushes > 0 && !fits) {
      throw new LorikeetError('too_many_requests', 'The operator is busy with other pushes; try again.', {
        expected: { pushes: this.#pushesMax, bytes: this.#bytesMax },
        actual: { ...this.#all, namespace: held },
      });
    }
    this.#byNamespace.set(namespace, held);
    this.#add(held, 1, bytes);
    return () => {
      this.#add(held, -1, -bytes);
      if (held.pushes === 0) this.#byNamespace.delete(namespace);
    };
  }

  #add(held: Held, pushes: number, bytes: number): void {
    for (const sum of [held, this.#all]) {
      sum.pushes += pushes;
      sum.bytes += bytes;
    }
    this.#onChange(this.#all.pushes, this.#all.bytes);
  }
}

function isLater(step: number | null, than: number | null): boolean {
  return step !== null && than !== null && step > than;
}

function superseded(message: string): LorikeetError {
  return new LorikeetError('superseded', message);
}
