import { setImmediate } from 'node:timers/promises';
import { LorikeetError } from '../contract/errors.ts';
import type { EngineSnapshot } from '../engine/port.ts';

export interface SlotTurnsOptions {
  slots: number;
  /** Requests that may wait for a slot; one more is refused with `no_capacity`. */
  waitingMax: number;
  /** Requests that one turn lets in while others wait. */
  turnMax: number;
  slotsInUse(): EngineSnapshot['slots'];
  /** Puts a revision into a slot; false where none is free. */
  bringIn(digest: string): Promise<boolean>;
}

interface Waiter {
  goOn(): void;
  refuse(error: unknown): void;
}

/**
 * Who gets the slots where more revisions are asked for than there are slots. Revisions come in in the order in which
 * requests began to wait for them. While one finds no slot, the revision that has had its slot for the longest lets
 * nobody else in, so that its leases end; whoever asks for it meanwhile waits for its next turn.
 */
export class SlotTurns {
  readonly #options: SlotTurnsOptions;
  /** Of revisions, in the order of their next turns. */
  readonly #waiting = new Map<string, Set<Waiter>>();
  /** Revisions that let nobody else in. */
  readonly #closing = new Set<string>();
  /** When a revision's turn began, counted in turns. */
  readonly #begun = new Map<string, number>();
  #turns = 0;
  #waiters = 0;
  #isServing = false;
  #change = Promise.withResolvers<void>();

  constructor(options: SlotTurnsOptions) {
    this.#options = options;
  }

  get waiters(): number {
    return this.#waiters;
  }

  /** Resolves when a request may be submitted for the revision: at once, but where others wait for its slot. */
  async enter(digest: string, signal: AbortSignal): Promise<void> {
    if (this.#closing.has(digest)) await this.wait(digest, signal);
  }

  /** Resolves in the revision's next turn, right after it was brought in: whoever submits then gets a lease. */
  async wait(digest: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#waiters >= this.#options.waitingMax) {
      throw new LorikeetError('no_capacity', 'Too many requests wait for a slot already', {
        field: 'waiting',
        expected: `at most ${this.#options.waitingMax}`,
        actual: this.#waiters,
      });
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter: Waiter = { goOn: resolve, refuse: reject };
    const leave = () => {
      this.#waiting.get(digest)?.delete(waiter);
      if (this.#waiting.get(digest)?.size === 0) this.#waiting.delete(digest);
      reject(signal.reason);
      this.wake();
    };
    signal.addEventListener('abort', leave, { once: true });
    const waiters = this.#waiting.get(digest) ?? new Set();
    this.#waiting.set(digest, waiters.add(waiter));
    this.#waiters += 1;
    if (this.#isServing) this.wake();
    else void this.#serve();
    try {
      await promise;
    } finally {
      this.#waiters -= 1;
      signal.removeEventListener('abort', leave);
    }
  }

  /** Looks again: a slot may have become free, or others may wait. */
  wake(): void {
    this.#change.resolve();
  }

  async #serve(): Promise<void> {
    this.#isServing = true;
    for (let next = this.#next(); next !== undefined; next = this.#next()) {
      this.#change = Promise.withResolvers();
      try {
        if (this.#mayComeIn(next) && (await this.#options.bringIn(next))) {
          this.#letIn(next);
          // They submit before the next revision looks for a slot without leases.
          await setImmediate();
          continue;
        }
      } catch (error) {
        for (const waiter of this.#waiting.get(next) ?? []) waiter.refuse(error);
        this.#waiting.delete(next);
        continue;
      }
      this.#closeLongestHeld();
      await this.#change.promise;
    }
    this.#closing.clear();
    this.#isServing = false;
  }

  #next(): string | undefined {
    return this.#waiting.keys().next().value;
  }

  /** Whether a slot is free, or can be. */
  hasRoom(): boolean {
    return this.#mayComeIn(null);
  }

  #mayComeIn(digest: string | null): boolean {
    const slots = this.#options.slotsInUse();
    if (slots.length < this.#options.slots) return true;
    return slots.some(({ revision, state, leases }) => {
      return state !== 'staging' && (revision === digest || leases === 0);
    });
  }

  #letIn(digest: string): void {
    const waiters = [...(this.#waiting.get(digest) ?? [])];
    this.#waiting.delete(digest);
    this.#closing.delete(digest);
    this.#begun.set(digest, ++this.#turns);
    const later = waiters.splice(this.#options.turnMax);
    if (later.length > 0) {
      this.#waiting.set(digest, new Set(later));
      this.#closing.add(digest);
    }
    for (const waiter of waiters) waiter.goOn();
  }

  /** One for each revision that waits. */
  #closeLongestHeld(): void {
    const leased = this.#options
      .slotsInUse()
      .flatMap(({ revision, leases }) => (leases > 0 ? [revision] : []));
    const since = (digest: string) => this.#begun.get(digest) ?? 0;
    for (const digest of [...this.#begun.keys(), ...this.#closing]) {
      if (leased.includes(digest)) continue;
      this.#begun.delete(digest);
      this.#closing.delete(digest);
    }
    const wanted = leased.toSorted((a, b) => since(a) - since(b)).slice(0, this.#waiting.size);
    for (const digest of wanted) this.#closing.add(digest);
  }
}
