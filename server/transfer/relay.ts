import type { IncomingHttpHeaders } from 'node:http';
import type { Dispatcher } from 'undici';
import { HEADER, MEDIA_TYPE, type RelayedPod, StageReply } from '../contract/adapter-api.ts';
import { LorikeetError } from '../contract/errors.ts';
import { writeContent, writeRelay } from '../contract/headers.ts';
import { exchange, jsonOrNull, readText } from './call.ts';
import { stallGuarded } from './stall-guard.ts';
import { PodUnreachable, rootMessage } from './unreachable.ts';

const SLICE_BYTES = 256 << 10;
/** What a call of the operator carries goes on with the body; the admin token is that of all pods of a pool. */
const CARRIED = ['authorization', HEADER.config, HEADER.step, HEADER.fence, HEADER.allow] as const;

export interface RelayLimits {
  /** A pod that takes no byte for this long is dropped. */
  stallMs: number;
  /** For the answer, once this pod has staged the revision itself; and at this pace, where that takes longer. */
  lateMs: number;
  bytesPerMsMin: number;
  /** More for each pod behind the next one: whoever is nearest to one that hangs drops it first. */
  hopMs: number;
}

const LIMITS: RelayLimits = { stallMs: 3_000, lateMs: 3_000, bytesPerMsMin: (16 << 20) / 1000, hopMs: 250 };

export interface RelayOptions {
  /** Admin addresses of the pods to pass the body on to: never none. */
  urls: readonly string[];
  /** Of this call, behind the address. */
  path: string;
  headers: IncomingHttpHeaders;
  bytes: number;
  dispatcher: Dispatcher;
  limits?: Partial<RelayLimits>;
}

/**
 * Passes a body on to the next pod while it arrives. It reads from the memory that this pod takes the body into, so that a
 * slow pod behind costs nothing more, and keeps neither this pod nor those before it waiting:
 *
 *   operator ─▶ body ──▶ pod a's body ──▶ pod b's body ──▶ pod c's body
 *                        ◀── relayed: b, c ◀── relayed: c ◀──
 *
 * The next pod gets no byte that this one has not been given, the last one included: what is cut off here is cut off there.
 */
export class Relay {
  readonly #options: RelayOptions;
  readonly #limits: RelayLimits;
  readonly #life = new AbortController();
  readonly #outcome: Promise<RelayedPod[]>;
  #body: Buffer | null = null;
  #filled = 0;
  #wake: () => void = () => undefined;

  constructor(options: RelayOptions) {
    this.#options = options;
    this.#limits = { ...LIMITS, ...options.limits };
    this.#outcome = this.#send().catch((error: unknown) => this.#broken(error));
  }

  /** So much of the body has arrived. */
  advance({ bytes, filled }: { bytes: Buffer; filled: number }): void {
    this.#body = bytes;
    this.#filled = filled;
    this.#wake();
  }

  /** This pod has not taken the body: no pod behind it gets its end. */
  abort(): void {
    this.#drop('was not told to the end');
  }

  /** Called once this pod is done itself: what became of the pods behind it, in their order. */
  async outcome(): Promise<RelayedPod[]> {
    const { urls, bytes } = this.#options;
    const { lateMs, hopMs, bytesPerMsMin } = this.#limits;
    const limitMs = lateMs + bytes / bytesPerMsMin + hopMs * (urls.length - 1);
    const timer = setTimeout(() => this.#drop('is far behind the one before it'), limitMs);
    try {
      return await this.#outcome;
    } finally {
      clearTimeout(timer);
    }
  }

  async #send(): Promise<RelayedPod[]> {
    const { urls, path, headers, bytes, dispatcher } = this.#options;
    const [url = '', ...behind] = urls;
    const carried = CARRIED.flatMap((name) =>
      headers[name] === undefined ? [] : [[name, String(headers[name])]],
    );
    const { signal } = this.#life;
    const { stallMs } = this.#limits;
    const body = stallGuarded(this.#slices(), stallMs, () => this.#drop(`took no byte for ${stallMs} ms`));
    try {
      const response = await exchange({
        method: 'POST',
        url: `${url}${path}`,
        headers: {
          ...Object.fromEntries(carried),
          ...writeContent(MEDIA_TYPE, bytes),
          ...writeRelay(behind),
        },
        body,
        dispatcher,
        signal,
        // `outcome` knows better how long.
        silenceMs: 0,
      });
      const reply = StageReply.safeParse(jsonOrNull(await readText(response.body, signal)));
      if (!reply.success) throw new PodUnreachable('the reply is not of the admin API');
      const { revision, relayed = [] } = reply.data;
      const known = new Map(relayed.map((pod) => [pod.url, pod]));
      return [
        { url, state: 'staged', revision, error: null },
        ...behind.map((next) => known.get(next) ?? skipped(next)),
      ];
    } finally {
      body.destroy();
    }
  }

  async *#slices(): AsyncGenerator<Uint8Array> {
    for (let sent = 0; sent < this.#options.bytes; ) {
      const end = Math.min(this.#filled, sent + SLICE_BYTES);
      if (this.#body !== null && end > sent) {
        yield this.#body.subarray(sent, end);
        sent = end;
      } else {
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#wake = resolve;
        await promise;
        this.#life.signal.throwIfAborted();
      }
    }
  }

  #drop(why: string): void {
    this.#life.abort(new PodUnreachable(`The pod ${why}`));
    this.#wake();
  }

  #broken(error: unknown): RelayedPod[] {
    const [url = '', ...behind] = this.#options.urls;
    const code = error instanceof LorikeetError ? error.code : 'pod_failed';
    const message = rootMessage(error).slice(0, 300);
    return [{ url, state: 'failed', revision: null, error: { code, message } }, ...behind.map(skipped)];
  }
}

function skipped(url: string): RelayedPod {
  return { url, state: 'skipped', revision: null, error: null };
}
