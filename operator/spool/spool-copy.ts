import type { Log } from '../kube/log.ts';
import type { Spool } from './spool.ts';
import type { RevisionMeta, SpoolWriter } from './spool-writer.ts';

/** The spool's copy of a push. A full or broken disk costs the copy, never the push: the pods hold the revision. */
export class SpoolCopy {
  readonly #log: Log;
  #writer: SpoolWriter | null;

  constructor(spool: Spool, log: Log) {
    this.#log = log;
    this.#writer = spool.begin({ hash: false });
  }

  async write(block: Uint8Array): Promise<void> {
    await this.#tolerate((writer) => writer.write(block));
  }

  async commit(digest: string, meta: RevisionMeta): Promise<void> {
    await this.#tolerate((writer) => writer.commit(digest, meta));
  }

  async abort(): Promise<void> {
    await this.#writer?.abort();
    this.#writer = null;
  }

  async #tolerate(act: (writer: SpoolWriter) => Promise<void>): Promise<void> {
    if (this.#writer === null) return;
    try {
      await act(this.#writer);
    } catch (error) {
      // Aborted meanwhile: then the failure is no news.
      if (this.#writer === null) return;
      const code = (error as NodeJS.ErrnoException).code;
      this.#log.warn({ code }, 'the spool keeps no copy of a push');
      await this.abort();
    }
  }
}
