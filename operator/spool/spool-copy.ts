import type { Log } from '../kube/log.ts';
import type { Spool } from './spool.ts';
import type { RevisionMeta, SpoolWriter } from './spool-writer.ts';

/** How far the disk may be behind the trainer before the trainer waits for it. */
const BEHIND_BYTES_MAX = 4 << 20;

/**
 * The spool's copy of a push, written beside it: what came while the disk was at work is its next piece of work. A full or
 * broken disk costs the copy, never the push: the pods hold the revision.
 */
export class SpoolCopy {
  readonly #log: Log;
  #writer: SpoolWriter | null;
  #blocks: Uint8Array[] = [];
  #behindBytes = 0;
  /** What the disk is at; null where it has nothing to do. */
  #writing: Promise<void> | null = null;

  constructor(spool: Spool, log: Log) {
    this.#log = log;
    this.#writer = spool.begin({ hash: false });
  }

  /** Nobody may change the block after this. Resolves when there is room for the next one. */
  async write(block: Uint8Array): Promise<void> {
    if (this.#writer === null) return;
    this.#blocks.push(block);
    this.#behindBytes += block.length;
    this.#writing ??= this.#writeAll();
    while (this.#writing !== null && this.#behindBytes > BEHIND_BYTES_MAX) await this.#writing;
  }

  async commit(digest: string, meta: RevisionMeta): Promise<void> {
    await this.#idle();
    await this.#tolerate((writer) => writer.commit(digest, meta));
  }

  async abort(): Promise<void> {
    const writer = this.#writer;
    this.#writer = null;
    await this.#idle();
    await writer?.abort();
  }

  async #idle(): Promise<void> {
    while (this.#writing !== null) await this.#writing;
  }

  async #writeAll(): Promise<void> {
    const [blocks, bytes] = [this.#blocks, this.#behindBytes];
    this.#blocks = [];
    await this.#tolerate((writer) => writer.write(...blocks));
    this.#behindBytes -= bytes;
    this.#writing = this.#blocks.length === 0 ? null : this.#writeAll();
  }

  async #tolerate(act: (writer: SpoolWriter) => Promise<void>): Promise<void> {
    const writer = this.#writer;
    if (writer === null) return;
    try {
      await act(writer);
    } catch (error) {
      // Aborted meanwhile: then the failure is no news.
      if (this.#writer === null) return;
      this.#writer = null;
      const code = (error as NodeJS.ErrnoException).code;
      this.#log.warn({ code }, 'the spool keeps no copy of a push');
      await writer.abort();
    }
  }
}
