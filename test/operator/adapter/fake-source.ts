import type {
  Fetched,
  FetchOrder,
  Source,
  SourcedAdapter,
  SourceState,
} from '../../../operator/source/types.ts';
import { Retryable } from '../../../operator/source/types.ts';
import type { SpooledRevision } from '../../../operator/spool/spool.ts';
import { type AdapterFiles, digestOf, goodAdapter } from '../../support/adapter-files.ts';

/** One object that has versions, or an archive of one revision. `nextError` fails the next call. */
export class FakeSource implements Source {
  files: AdapterFiles = goodAdapter(1);
  version = 'v1';
  nextError: Error | null = null;
  /** Fails every fetch, as content that is wrong does. */
  fetchError: Error | null = null;
  /** Gives a byte now and then: no call ends before its signal aborts. */
  isSlow = false;
  /** What was written to it, in order. */
  kept: { uri: string | undefined; config: unknown }[] = [];
  resolves = 0;
  fetches = 0;
  #busy = 0;

  put(seed: number): string {
    this.files = goodAdapter(seed);
    this.version = `v${seed}`;
    return digestOf(this.files);
  }

  /** When whatever was asked has been answered, and who asked has been told. */
  async whenIdle(): Promise<void> {
    do await new Promise((resolve) => setImmediate(resolve));
    while (this.#busy > 0);
  }

  async resolve(_adapter: unknown, signal: AbortSignal): Promise<SourceState> {
    this.resolves += 1;
    if (this.isSlow) await ended(signal);
    this.#fail();
    return { sourceVersion: this.version };
  }

  async fetch(_adapter: unknown, order: FetchOrder, signal: AbortSignal): Promise<Fetched> {
    this.fetches += 1;
    if (this.isSlow) await ended(signal);
    this.#busy += 1;
    try {
      return await this.#fetch(order);
    } finally {
      this.#busy -= 1;
    }
  }

  async #fetch({ sourceVersion, spool }: FetchOrder): Promise<Fetched> {
    this.#fail();
    if (this.fetchError) throw this.fetchError;
    if (sourceVersion !== this.version) throw new Retryable('SourceChanged', 'another version is there');
    const digest = digestOf(this.files);
    const config = JSON.parse(this.files.config.toString('utf8')) as unknown;
    const writer = spool.begin();
    await writer.write(this.files.tensors);
    await writer.commit(digest, { config });
    const shape = { rank: 8, targetModules: ['q_proj', 'v_proj'] };
    return { digest, config, bytes: this.files.tensors.length, sourceVersion: this.version, shape };
  }

  async keep(folder: SourcedAdapter, { config }: SpooledRevision): Promise<void> {
    this.#fail();
    this.kept.push({ uri: folder.spec.source.objectStore?.uri, config });
  }

  #fail(): void {
    const error = this.nextError;
    this.nextError = null;
    if (error) throw error;
  }
}

function ended(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
