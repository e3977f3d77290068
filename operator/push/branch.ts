import type { StageReply } from '../../server/contract/adapter-api.ts';
import { LorikeetError } from '../../server/contract/errors.ts';
import type { PodOutcome } from '../adapter/publish/publication.ts';
import type { Clock } from '../kube/clock.ts';
import type { Pod } from '../pods/pod.ts';

export interface BranchLimits {
  /** Bytes that a pod may be behind the trainer before the trainer waits for it. */
  windowBytes: number;
  /** A pod that has begun and takes no byte for this long is dropped. */
  stallMs: number;
  /** The same for one that has not begun: it may be connecting, or busy with other uploads. */
  startMs: number;
}

export type Upload = (pod: Pod, body: AsyncIterable<Uint8Array>, signal: AbortSignal) => Promise<StageReply>;

/** The way of the bytes to one pod: a queue that the pod empties at its own pace. */
export class Branch {
  readonly pod: Pod;
  /** Resolves when the pod has answered or was dropped; never rejects. */
  readonly settled: Promise<PodOutcome>;
  readonly #limits: BranchLimits;
  readonly #clock: Clock;
  readonly #life = new AbortController();
  readonly #blocks: Uint8Array[] = [];
  #queuedBytes = 0;
  #progressAt: number;
  #hasBegun = false;
  #ended = false;
  #outcome: PodOutcome | null = null;
  #revision: string | null = null;
  #wakeReader: () => void = () => undefined;
  #wakeWriter: () => void = () => undefined;

  constructor(pod: Pod, upload: Upload, limits: BranchLimits, clock: Clock) {
    this.pod = pod;
    this.#limits = limits;
    this.#clock = clock;
    const startedAt = clock.monotonicMs();
    this.#progressAt = startedAt;
    const { promise, resolve } = Promise.withResolvers<PodOutcome>();
    this.settled = promise;
    const settle = (error: LorikeetError | null) => {
      const ms = clock.monotonicMs() - startedAt;
      this.#outcome ??= { pod, ok: error === null, error, ms };
      resolve(this.#outcome);
      this.#wakeWriter();
    };
    this.#life.signal.addEventListener('abort', () => settle(this.#life.signal.reason), { once: true });
    upload(pod, this.#body(), this.#life.signal).then(
      (reply) => settle(this.#refusalOf(reply)),
      (error: unknown) => settle(podFailed(error)),
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

  #refusalOf(reply: StageReply): LorikeetError | null {
    if (!this.#ended) return failed('The pod answered before the end of the upload');
    if (reply.revision === this.#revision) return null;
    return failed('The pod received other bytes than were sent', {
      expected: this.#revision,
      actual: reply.revision,
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
