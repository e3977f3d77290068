import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import type { PodClient, StageOptions } from '../../../operator/pods/client.ts';
import type { Pod } from '../../../operator/pods/pod.ts';
import type { PodState, StageReply } from '../../../server/contract/adapter-api.ts';
import { revisionDigest } from '../../../server/contract/digest.ts';
import { NAMESPACE, POOL_KEY } from '../../operator/adapter/objects.ts';
import { bytesBefore, type Fault } from './fault.ts';
import { podState, type StateOptions } from './state.ts';

/** How an upload goes wrong: as any call, or block by block too slowly, or to an answer with the digest of other bytes. */
export type UploadFault = Fault | { kind: 'slow'; msPerBlock: number } | { kind: 'lie' };

type UploadOptions = Omit<StageOptions, 'fence'> & { size: number | null };

export interface FakePodOptions extends StateOptions {
  name?: string;
  /** Null: it has not reported yet. */
  state?: null;
  reachable?: boolean;
  error?: string | null;
  fault?: UploadFault;
  /** Instead of the one that takes uploads in this process. */
  client?: PodClient;
}

/** A pod as a link shows it. It takes uploads in this process: no socket hides how many bytes it has taken. */
export class FakePod implements Pod {
  readonly key: string;
  readonly name: string;
  readonly namespace = NAMESPACE;
  readonly uid: string;
  readonly ip = '127.0.1.1';
  readonly poolKey = POOL_KEY;
  readonly adminUrl: string;
  readonly client: PodClient;
  state: PodState | null;
  readonly reachable: boolean;
  readonly error: string | null;
  /** Digests of whole revisions, in the order they came. */
  readonly staged: string[] = [];
  readonly uploads: (Required<Omit<UploadOptions, 'signal' | 'relay'>> & { name: string })[] = [];
  receivedBytes = 0;
  blocks = 0;
  /** Uploads that did not come to their end. */
  cut = 0;
  readonly #fault: UploadFault | undefined;

  constructor(options: FakePodOptions = {}) {
    const { name = 'pod-0', reachable = options.state !== null, error = null } = options;
    this.key = `${NAMESPACE}/${name}`;
    this.name = name;
    this.uid = `uid-${name}`;
    this.adminUrl = options.client?.adminUrl ?? 'http://127.0.1.1:1';
    this.client = options.client ?? ({ upload: this.#upload } as unknown as PodClient);
    this.state = options.state === null ? null : podState(options);
    this.reachable = reachable;
    this.error = reachable ? null : error;
    this.#fault = options.fault;
  }

  readonly #upload = async (
    name: string,
    body: AsyncIterable<Uint8Array>,
    options: UploadOptions,
  ): Promise<StageReply> => {
    const { config, step, size, allow = [] } = options;
    this.uploads.push({ name, config, step, size, allow });
    try {
      const tensors = await this.#take(body, options);
      const revision = revisionDigest(config, this.#fault?.kind === 'lie' ? '0'.repeat(64) : tensors);
      this.staged.push(revision);
      return { revision } as StageReply;
    } catch (error) {
      this.cut += 1;
      throw error;
    }
  };

  /** Returns the SHA-256 of the body. */
  async #take(body: AsyncIterable<Uint8Array>, { size, signal }: UploadOptions): Promise<string> {
    const msPerBlock = this.#fault?.kind === 'slow' ? this.#fault.msPerBlock : 0;
    await this.#failAfter(0, signal);
    const hash = createHash('sha256');
    let bytes = 0;
    for await (const block of body) {
      hash.update(block);
      bytes += block.length;
      this.receivedBytes += block.length;
      this.blocks += 1;
      // As over HTTP with a Content-Length: the last byte is the end.
      if (bytes === size) break;
      if (msPerBlock > 0) await setTimeout(msPerBlock);
      await this.#failAfter(bytes, signal);
    }
    await this.#failAfter(Number.POSITIVE_INFINITY, signal);
    return hash.digest('hex');
  }

  async #failAfter(bytes: number, signal: AbortSignal): Promise<void> {
    const fault = this.#fault;
    if (fault === undefined || fault.kind === 'slow' || fault.kind === 'lie') return;
    if (bytes < bytesBefore(fault)) return;
    if (fault.kind === 'refuse') throw fault.error;
    if (fault.kind === 'reset') throw new Error('connection reset');
    if (!signal.aborted) await once(signal, 'abort');
    throw signal.reason;
  }
}
