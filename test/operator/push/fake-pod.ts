import { createHash } from 'node:crypto';
import type { PodState, StageReply } from '../../../server/contract/adapter-api.ts';
import { revisionDigest } from '../../../server/contract/digest.ts';

/** How a pod takes an upload. */
export type Manner =
  | { kind: 'well' }
  /** Never takes a byte. */
  | { kind: 'hung' }
  | { kind: 'slow'; msPerBlock: number }
  /** Takes `bytes`, then fails with `error`, or hangs where there is none. */
  | { kind: 'stops'; bytes: number; error?: Error }
  /** Takes all and does not answer. */
  | { kind: 'silent' }
  /** Takes all and answers this. */
  | { kind: 'refuses'; error: Error }
  | { kind: 'garbles' };

export class FakePod {
  readonly name: string;
  manner: Manner;
  /** Digests of whole revisions, in the order they came. */
  readonly staged: string[] = [];
  readonly uploads: {
    name: string;
    config: unknown;
    step: number | null;
    size: number | null;
    allow: string[];
  }[] = [];
  receivedBytes = 0;
  blocks = 0;
  cut = 0;
  state: PodState | null = null;

  constructor(name: string, manner: Manner = { kind: 'well' }) {
    this.name = name;
    this.manner = manner;
  }

  readonly client = {
    upload: async (
      name: string,
      body: AsyncIterable<Uint8Array>,
      options: {
        size: number | null;
        config: unknown;
        step: number | null;
        allow: string[];
        signal: AbortSignal;
      },
    ): Promise<StageReply> => {
      const { config, step, size, allow, signal } = options;
      this.uploads.push({ name, config, step, size, allow });
      try {
        return await this.#take(body, { config, size, signal });
      } catch (error) {
        this.cut += 1;
        throw error;
      }
    },
  };

  async #take(
    body: AsyncIterable<Uint8Array>,
    { config, size, signal }: { config: unknown; size: number | null; signal: AbortSignal },
  ): Promise<StageReply> {
    const { manner } = this;
    if (manner.kind === 'hung') await aborted(signal);
    const hash = createHash('sha256');
    let bytes = 0;
    for await (const block of body) {
      hash.update(block);
      bytes += block.length;
      this.receivedBytes += block.length;
      this.blocks += 1;
      // As over HTTP with a Content-Length: the last byte is the end.
      if (bytes === size) break;
      if (manner.kind === 'slow') await new Promise((resolve) => setTimeout(resolve, manner.msPerBlock));
      if (manner.kind === 'stops' && bytes >= manner.bytes) {
        if (manner.error) throw manner.error;
        await aborted(signal);
      }
    }
    if (manner.kind === 'refuses') throw manner.error;
    if (manner.kind === 'silent') await aborted(signal);
    const tensors = manner.kind === 'garbles' ? '0'.repeat(64) : hash.digest('hex');
    const revision = revisionDigest(config, tensors);
    this.staged.push(revision);
    return { revision } as StageReply;
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
