import { LorikeetError } from '../../server/contract/errors.ts';
import type { PodOutcome } from '../adapter/publish/publication.ts';
import type { Clock } from '../kube/clock.ts';
import type { Pod } from '../pods/pod.ts';
import { Branch, type BranchLimits, type ChainOutcome, chainsOf, type Upload } from './branch.ts';

export type FanOutLimits = BranchLimits & {
  /** From so many pods on they pass the body on to each other. */
  relayFrom: number;
};

/** How much longer than the first pod the others may take for their answer. */
const STRAGGLE_FACTOR = 3;

/**
 * One stream in, one out per pod, block by block as it arrives. The trainer waits for the slowest pod that makes
 * progress, never for one that makes none:
 *
 *   trainer ─▶ block ─┬─▶ branch ≤ window ─▶ pod a
 *                     ├─▶ branch ≤ window ─▶ pod b    slow: the trainer slows down
 *                     └─▶ branch   full    ✕ pod c    hung: dropped after stallMs, its outcome is an error
 *
 * From `relayFrom` pods on there is one branch, to the first of them, which passes the bytes on to the next, and so on.
 */
export class FanOut {
  readonly #branches: Branch[];
  readonly #limits: BranchLimits;
  readonly #clock: Clock;

  constructor(pods: readonly Pod[], upload: Upload, limits: FanOutLimits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
    const chains = chainsOf(pods, limits.relayFrom);
    this.#branches = chains.map((chain) => new Branch(chain, upload, limits, clock));
  }

  /** False: no more is to be sent. */
  get isLive(): boolean {
    return this.#branches.some((branch) => branch.isLive);
  }

  async write(block: Uint8Array): Promise<void> {
    await Promise.all(this.#branches.map((branch) => branch.write(block)));
  }

  /**
   * Sends the last block. Resolves with what became of each pod; one that takes far longer than the first is dropped as one
   * that failed, one that takes longer than `timeoutMs`, which the trainer chose, as late.
   */
  async finish(block: Uint8Array, revision: string, timeoutMs: number): Promise<ChainOutcome> {
    const endedAt = this.#clock.monotonicMs();
    const cancels = [this.#clock.after(timeoutMs, () => this.#dropRest('did not answer in time', 'timeout'))];
    for (const branch of this.#branches) {
      void branch.end(block, revision);
      void branch.settled.then(({ outcomes }) => {
        if (!outcomes.some(({ ok }) => ok) || cancels.length > 1) return;
        const tookMs = this.#clock.monotonicMs() - endedAt;
        const graceMs = Math.max(this.#limits.stallMs, STRAGGLE_FACTOR * tookMs);
        cancels.push(this.#clock.after(graceMs, () => this.#dropRest('fell far behind the first')));
      });
    }
    try {
      return await this.settled();
    } finally {
      for (const cancel of cancels) cancel();
    }
  }

  /** Cuts every upload off before its end, so that no pod has a whole revision. */
  abort(): void {
    this.#dropRest('was not told to the end');
  }

  #dropRest(why: string, code: 'pod_failed' | 'timeout' = 'pod_failed'): void {
    for (const branch of this.#branches) branch.drop(new LorikeetError(code, `The pod ${why}`));
  }

  async settled(): Promise<ChainOutcome> {
    const all = await Promise.all(this.#branches.map((branch) => branch.settled));
    return {
      outcomes: all.flatMap(({ outcomes }) => outcomes),
      skipped: all.flatMap(({ skipped }) => skipped),
    };
  }
}

/** Throws what the pods said when none has the revision, and none is left that could be asked with a better hope. */
export function requireHope({ outcomes, skipped }: ChainOutcome): void {
  if (outcomes.some(({ ok }) => ok)) return;
  const isRefused = outcomes.some(({ error }) => error !== null && rank(error) === 0);
  if (isRefused || skipped.length === 0) throw worstOf(outcomes);
}

/** What the trainer should hear when no pod took the revision: a refusal of the content before trouble on the way. */
function worstOf(outcomes: PodOutcome[]): LorikeetError {
  const errors = outcomes.flatMap(({ error }) => (error === null ? [] : [error]));
  const [first] = [...errors].sort((a, b) => rank(a) - rank(b));
  if (first === undefined) return new LorikeetError('no_pods', 'No pod is there to take the revision');
  if (first.code !== 'pod_failed' && first.code !== 'timeout') return first;
  const pods = outcomes.map(({ pod, error }) => ({ name: pod.name, error: error?.message }));
  const message = `No pod took the revision${first.code === 'timeout' ? ' in time' : ''}`;
  return new LorikeetError(first.code, message, { actual: pods.slice(0, 20) });
}

function rank({ code, status }: LorikeetError): number {
  if (status === 422 || status === 400) return 0;
  if (code === 'pod_failed') return 3;
  return code === 'timeout' ? 2 : 1;
}
