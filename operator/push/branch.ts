import { RELAY_PODS_MAX, type RelayedPod, type StageReply } from '../../server/contract/adapter-api.ts';
import { ERRORS, type ErrorCode, LorikeetError } from '../../server/contract/errors.ts';
import type { PodOutcome } from '../adapter/publish/publication.ts';
import type { Clock } from '../kube/clock.ts';
import { mayRelay, type Pod } from '../pods/pod.ts';

export interface BranchLimits {
  /** Bytes that a pod may be behind the trainer before the trainer waits for it. */
  windowBytes: number;
  /** A pod that has begun and takes no byte for this long is dropped. */
  stallMs: number;
  /** The same for one that has not begun: it may be connecting, or busy with other uploads. */
  startMs: number;
}

/** To the first pod of a chain, which passes the body on to the others. */
export type Upload = (
  pod: Pod,
  body: AsyncIterable<Uint8Array>,
  options: { relay: string[]; signal: AbortSignal },
) => Promise<StageReply>;

/** Of each pod of a chain but those that were passed over: one before them fell out. */
export interface ChainOutcome {
  outcomes: PodOutcome[];
  skipped: Pod[];
}

/** Pods each on its own, or from `relayFrom` of them on one behind the other, in as few chains as a header has room for. */
export function chainsOf(pods: readonly Pod[], relayFrom: number): Pod[][] {
  if (pods.length < relayFrom || !pods.every(mayRelay)) return pods.map((pod) => [pod]);
  const chains = Math.ceil(pods.length / (RELAY_PODS_MAX + 1));
  const each = Math.ceil(pods.length / chains);
  return Array.from({ length: chains }, (_, at) => pods.slice(at * each, (at + 1) * each));
}

/** The way of the bytes to one chain of pods: a queue that the first of them empties at its own pace. */
export class Branch {
  /** Resolves when the pod has answered or was dropped; never rejects. */
  readonly settled: Promise<ChainOutcome>;
  readonly #chain: readonly Pod[];
  readonly #limits: BranchLimits;
  readonly #clock: Clock;
  readonly #life = new AbortController();
  readonly #blocks: Uint8Array[] = [];
  #queuedBytes = 0;
  readonly #startedAt: number;
  #progressAt: number;
  #hasBegun = false;
  #ended = false;
  #outcome: ChainOutcome | null = null;
  #revision: string | null = null;
  #wakeReader: () => void = () => undefined;
  #wakeWriter: () => void = () => undefined;

  constructor(chain: readonly Pod[], upload: Upload, limits: BranchLimits, clock: Clock) {
    this.#chain = chain;
    this.#limits = limits;
    this.#clock = clock;
    this.#startedAt = clock.monotonicMs();
    this.#progressAt = this.#startedAt;
    const { promise, resolve } = Promise.withResolvers<ChainOutcome>();
    this.settled = promise;
    const settle = (outcome: ChainOutcome) => {
      this.#outcome ??= outcome;
      resolve(this.#outcome);
      this.#wakeWriter();
    };
    const { signal } = this.#life;
    signal.addEventListener('abort', () => settle(this.#broken(signal.reason)), { once: true });
    const [first, ...behind] = chain as [Pod, ...Pod[]];
    upload(first, this.#body(), { relay: behind.map(({ adminUrl }) => adminUrl), signal }).then(
      (reply) => settle(this.#answered(reply)),
      (error: unknown) => settle(this.#broken(podFailed(error))),
    );
  }

  get isLive(): boolean {
    return this.#outcome === null;
  }

  /** Resolves when there is room for the next block, or the pod has fallen out. */
  async write(block: Uint8Array): Promise<void> {
    if (!this.isLive) return;
    this.#queue(block);
    while (this.isLive && this.#queuedBytes > this.#limits.windowBytes) await this.#progress();
  }

  /**
   * The last block, and what the whole is: a pod that knows the size answers as soon as it has that block. Resolves when
   * the pod has taken it.
   */
  async end(block: Uint8Array, revision: string): Promise<void> {
    this.#revision = revision;
    this.#ended = true;
    if (!this.isLive) return;
    this.#queue(block);
    while (this.isLive && this.#queuedBytes > 0) await this.#progress();
  }

  drop(reason: LorikeetError): void {
    if (!this.isLive) return;
    this.#blocks.length = 0;
    this.#life.abort(reason);
    this.#wakeReader();
  }

  #queue(block: Uint8Array): void {
    this.#blocks.push(block);
    this.#queuedBytes += block.length;
    this.#wakeReader();
  }

  /** Waits for the pod to take a block, no longer than it may be idle. */
  async #progress(): Promise<void> {
    const { stallMs, startMs } = this.#limits;
    const idleMsMax = this.#hasBegun ? stallMs : startMs;
    const leftMs = this.#progressAt + idleMsMax - this.#clock.monotonicMs();
    if (leftMs <= 0) {
      this.drop(failed(`The pod took no byte for ${idleMsMax} ms`));
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    // One turn of the event loop more: where it was blocked, the pod could take nothing either.
    const cancel = this.#clock.after(leftMs, () => setImmediate(resolve));
    this.#wakeWriter = resolve;
    await promise;
    cancel();
  }

  async *#body(): AsyncGenerator<Uint8Array> {
    this.#hasBegun = true;
    for (;;) {
      this.#life.signal.throwIfAborted();
      const block = this.#blocks.shift();
      if (block !== undefined) {
        this.#queuedBytes -= block.length;
        this.#progressAt = this.#clock.monotonicMs();
        this.#wakeWriter();
        yield block;
      } else if (this.#ended) {
        return;
      } else {
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#wakeReader = resolve;
        await promise;
        // Time without bytes to give is not the pod's.
        this.#progressAt = this.#clock.monotonicMs();
      }
    }
  }

  #answered({ revision, relayed = [] }: StageReply): ChainOutcome {
    if (!this.#ended) return this.#broken(failed('The pod answered before the end of the upload'));
    const [first, ...behind] = this.#chain as [Pod, ...Pod[]];
    const known = new Map(relayed.map((pod) => [pod.url, pod]));
    const answers = behind.map((pod) => ({ pod, answer: known.get(pod.adminUrl) }));
    const heard = answers.flatMap(({ pod, answer }) => {
      return answer === undefined || answer.state === 'skipped'
        ? []
        : [this.#outcomeOf(pod, this.#errorOf(answer))];
    });
    return {
      outcomes: [this.#outcomeOf(first, this.#otherThanSent(revision)), ...heard],
      skipped: answers.flatMap(({ pod, answer }) => {
        return answer === undefined || answer.state === 'skipped' ? [pod] : [];
      }),
    };
  }

  /** The first pod fell out. Where the time is up, it is so for all. */
  #broken(error: LorikeetError): ChainOutcome {
    const [first, ...behind] = this.#chain as [Pod, ...Pod[]];
    if (error.code !== 'timeout') return { outcomes: [this.#outcomeOf(first, error)], skipped: behind };
    return { outcomes: this.#chain.map((pod) => this.#outcomeOf(pod, error)), skipped: [] };
  }

  #outcomeOf(pod: Pod, error: LorikeetError | null): PodOutcome {
    return { pod, ok: error === null, error, ms: this.#clock.monotonicMs() - this.#startedAt };
  }

  #errorOf({ state, revision, error }: RelayedPod): LorikeetError | null {
    if (state === 'staged') return this.#otherThanSent(revision);
    const code = error?.code ?? '';
    const isKnown = Object.hasOwn(ERRORS, code) && code !== 'unauthenticated';
    return new LorikeetError(
      isKnown ? (code as ErrorCode) : 'pod_failed',
      error?.message ?? 'The pod failed',
    );
  }

  #otherThanSent(revision: string | null): LorikeetError | null {
    if (revision === this.#revision) return null;
    return failed('The pod received other bytes than were sent', {
      expected: this.#revision,
      actual: revision,
    });
  }
}

function podFailed(error: unknown): LorikeetError {
  if (error instanceof LorikeetError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return failed(`The pod did not take the revision: ${message.slice(0, 160)}`, { cause: error });
}

function failed(message: string, detail: ConstructorParameters<typeof LorikeetError>[2] = {}): LorikeetError {
  return new LorikeetError('pod_failed', message, detail);
}
