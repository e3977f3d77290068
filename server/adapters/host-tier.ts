import { expected } from '../contract/errors.ts';
import type { Content } from '../engine/port.ts';

export interface Incoming extends Content {
  /** True where `body` itself carries the config. */
  configInBody: boolean;
  /** What it takes of the tier's budget. */
  hostBytes: number;
}

/** A revision that the engine has found good. */
export interface Held extends Incoming {
  pages: number;
  /** Tensors that were rounded on their way into pages. */
  rounded: number;
  /** It changes nothing, and that was meant. */
  zeroEffect: boolean;
}

/** Which revisions may leave the tier as things stand, and what goes with them. */
export interface Evictions {
  droppable(): (digest: string) => boolean;
  dropped(digest: string): void;
}

/**
 * Revisions in RAM, within a budget of bytes. Room is made by dropping the least recently used revision that may go;
 * where none may, the newcomer is refused. An adapter that is still arriving holds its room as a reservation.
 */
export class HostTier {
  readonly bytesMax: number;
  readonly #evictions: Evictions;
  // Insertion order is the order of use: the first is the least recently used.
  readonly #held = new Map<string, Held>();
  #usedBytes = 0;

  constructor(bytesMax: number, evictions: Evictions) {
    this.bytesMax = bytesMax;
    this.#evictions = evictions;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get(digest: string): Held | undefined {
    return this.#held.get(digest);
  }

  touch(digest: string): void {
    const held = this.#held.get(digest);
    if (held === undefined) return;
    this.#held.delete(digest);
    this.#held.set(digest, held);
  }

  /** Throws `no_capacity` where not enough may be dropped. */
  reserve(bytes: number): Reservation {
    this.#makeRoom(bytes);
    this.#usedBytes += bytes;
    return new Reservation(() => {
      this.#usedBytes -= bytes;
    });
  }

  /** Takes a revision in; its room is what `reservation` held. */
  add(held: Held, reservation: Reservation): void {
    reservation.release();
    this.#usedBytes += held.hostBytes;
    this.#held.set(held.digest, held);
  }

  delete(digest: string): void {
    const held = this.#held.get(digest);
    if (held === undefined) return;
    this.#held.delete(digest);
    this.#usedBytes -= held.hostBytes;
  }

  /** Drops nothing where that would not be enough. */
  #makeRoom(bytes: number): void {
    const victims: string[] = [];
    let freeBytes = this.bytesMax - this.#usedBytes;
    const mayDrop = freeBytes < bytes ? this.#evictions.droppable() : () => false;
    for (const { digest, hostBytes } of this.#held.values()) {
      if (freeBytes >= bytes) break;
      if (!mayDrop(digest)) continue;
      victims.push(digest);
      freeBytes += hostBytes;
    }
    if (freeBytes >= bytes) {
      for (const digest of victims) {
        this.delete(digest);
        this.#evictions.dropped(digest);
      }
      return;
    }
    const want = `at most ${freeBytes} bytes (the rest of ${this.bytesMax} is held by current, leased or arriving revisions)`;
    throw expected('no_capacity', 'hostBytes', want, bytes);
  }
}

export class Reservation {
  readonly #giveBack: () => void;
  #open = true;

  constructor(giveBack: () => void) {
    this.#giveBack = giveBack;
  }

  /** Again has no effect. */
  release(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#giveBack();
  }
}
