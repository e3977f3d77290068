import type { Fetched, FetchOrder, Source, SourceState } from '../../../operator/source/types.ts';
import { Retryable } from '../../../operator/source/types.ts';
import { type AdapterFiles, digestOf, goodAdapter } from '../../support/adapter-files.ts';

/** One object that has versions. `nextError` fails the next call. */
export class FakeSource implements Source {
  files: AdapterFiles = goodAdapter(1);
  version = 'v1';
  nextError: Error | null = null;
  /** Fails every fetch, as content that is wrong does. */
  fetchError: Error | null = null;
  resolves = 0;
  fetches = 0;

  put(seed: number): string {
    this.files = goodAdapter(seed);
    this.version = `v${seed}`;
    return digestOf(this.files);
  }

  async resolve(): Promise<SourceState> {
    this.resolves += 1;
    this.#fail();
    return { sourceVersion: this.version };
  }

  async fetch(_adapter: unknown, { sourceVersion, spool }: FetchOrder): Promise<Fetched> {
    this.fetches += 1;
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

  #fail(): void {
    const error = this.nextError;
    this.nextError = null;
    if (error) throw error;
  }
}
