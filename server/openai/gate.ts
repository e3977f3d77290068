import { OpenAiError } from './errors.ts';

/** A request that is under way. */
export interface Visit {
  /** Aborts when the request is to end with what it has. */
  readonly cut: AbortSignal;
  leave(): void;
}

/** The door before generation. It stands open until somebody pauses the server; then new requests wait before it. */
export class Gate {
  readonly #waitingMax: number;
  readonly #inside = new Map<Visit, AbortController>();
  #closed: PromiseWithResolvers<void> | null = null;
  #waiting = 0;
  #emptied = Promise.withResolvers<void>();

  constructor(waitingMax: number) {
    this.#waitingMax = waitingMax;
  }

  /** In the order of arrival once it opens. Refuses more than may wait. */
  async enter(signal: AbortSignal): Promise<Visit> {
    while (this.#closed !== null) await this.#wait(this.#closed.promise, signal);
    const controller = new AbortController();
    const visit: Visit = { cut: controller.signal, leave: () => this.#leave(visit) };
    this.#inside.set(visit, controller);
    return visit;
  }

  close(): void {
    this.#closed ??= Promise.withResolvers<void>();
  }

  open(): void {
    this.#closed?.resolve();
    this.#closed = null;
  }

  /** Ends what is under way with what it has. */
  cutAll(): void {
    const reason = new OpenAiError('paused', 'The server was paused, and what ran was ended.');
    for (const controller of this.#inside.values()) controller.abort(reason);
  }

  /** Resolves once nothing is under way. */
  async empty(signal: AbortSignal): Promise<void> {
    while (this.#inside.size > 0) await unlessAborted(this.#emptied.promise, signal);
  }

  async #wait(opened: Promise<void>, signal: AbortSignal): Promise<void> {
    if (this.#waiting >= this.#waitingMax)
      throw new OpenAiError('paused', 'The server is paused, and no more requests may wait for it.');
    this.#waiting += 1;
    try {
      await unlessAborted(opened, signal);
    } finally {
      this.#waiting -= 1;
    }
  }

  #leave(visit: Visit): void {
    this.#inside.delete(visit);
    if (this.#inside.size > 0) return;
    this.#emptied.resolve();
    this.#emptied = Promise.withResolvers();
  }
}

async function unlessAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
