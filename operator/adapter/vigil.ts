import type { Reason } from '../api/conditions.ts';
import type { LoraAdapter } from '../api/lora-adapter.ts';
import type { Clock } from '../kube/clock.ts';
import { keyOf } from '../kube/resource.ts';
import { secretOf } from '../source/index.ts';

/** After a look, and between any two of them. */
const LOOK_MS = 5_000;
const SPACING_MS = 100;
const LOOK_MS_MAX = 300_000;

/**
 * When to look again for what somebody is expected to put right at any moment, such as a Secret that is missing: nobody
 * tells that it has been. Soon, but all that is awaited together costs ten looks a second; whoever awaits the same looks
 * at the same time.
 */
export class Vigil {
  readonly #clock: Clock;
  /** When the next look at each is; monotonic. */
  readonly #looks = new Map<string, number>();
  #lastMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Milliseconds until the next look at it. */
  lookMs(what: string): number {
    const nowMs = this.#clock.monotonicMs();
    const known = this.#looks.get(what);
    if (known !== undefined && known > nowMs) return known - nowMs;
    for (const [each, atMs] of this.#looks) if (atMs <= nowMs) this.#looks.delete(each);
    const atMs = Math.min(Math.max(nowMs + LOOK_MS, this.#lastMs + SPACING_MS), nowMs + LOOK_MS_MAX);
    this.#looks.set(what, atMs);
    this.#lastMs = atMs;
    return atMs - nowMs;
  }
}

/** What an adapter whose source failed so waits for people to put right; null: they need not be who ends it. */
export function awaitedBy({ metadata, spec }: LoraAdapter, reason: Reason): string | null {
  const secret = secretOf({ metadata, spec });
  if (secret === null) return null;
  switch (reason) {
    case 'CredentialsNotFound':
    case 'CredentialsForbidden':
      return `secret ${metadata.namespace}/${secret}`;
    // What a store thinks of the Secret's keys only the store can say, of each place anew.
    case 'SourceAccessDenied':
      return `adapter ${keyOf({ metadata })}`;
    default:
      return null;
  }
}
