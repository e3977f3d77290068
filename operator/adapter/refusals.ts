import type { Pod } from '../pods/pod.ts';
import type { Failure } from './failures.ts';

const DIGESTS_MAX = 8;

interface Refusal {
  bootId: string;
  failure: Failure;
}

/** Which pods refused which revisions for what they are. A refusal lasts as long as the process that spoke it. */
export class Refusals {
  /** By digest, the newest last, then by pod uid. */
  readonly #refused = new Map<string, Map<string, Refusal>>();

  of(digest: string): Failure | null {
    const [first] = this.#refused.get(digest)?.values() ?? [];
    return first?.failure ?? null;
  }

  /** True where it is the first of the digest. */
  note(digest: string, podUid: string, refusal: Refusal): boolean {
    const known = this.#refused.get(digest);
    this.#refused.set(digest, (known ?? new Map<string, Refusal>()).set(podUid, refusal));
    const [oldest] = this.#refused.keys();
    if (this.#refused.size > DIGESTS_MAX && oldest !== undefined) this.#refused.delete(oldest);
    return known === undefined;
  }

  forget(digest: string): void {
    this.#refused.delete(digest);
  }

  /** Forgets what pods said that are gone, or run another process by now. Returns the digests that nobody refuses any more. */
  keep(pods: readonly Pod[]): string[] {
    const bootIds = new Map(pods.map(({ uid, state }) => [uid, state?.bootId]));
    const cleared: string[] = [];
    for (const [digest, refusals] of this.#refused) {
      for (const [podUid, { bootId }] of refusals) {
        if (!bootIds.has(podUid) || (bootIds.get(podUid) ?? bootId) !== bootId) refusals.delete(podUid);
      }
      if (refusals.size > 0) continue;
      this.#refused.delete(digest);
      cleared.push(digest);
    }
    return cleared;
  }
}
