import { createHash, randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { constants, type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { revisionDigest } from '../../server/contract/digest.ts';
import { type Entry, moveIntoPlace } from './spool-dir.ts';
import { SpoolError } from './spool-error.ts';

export interface RevisionMeta {
  config: unknown;
  step?: number | null;
  /** Required of a writer that does not hash. */
  tensorsSha256?: string;
}

export interface WriterParts {
  root: string;
  hash: boolean;
  /** Makes room, or throws. */
  reserve(bytes: number): void;
  release(bytes: number): void;
  adopt(digest: string, entry: Entry): void;
}

const CREATE = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW;

/** One revision on its way into the spool. Ends with `commit` or `abort`; after an error of `write`, with `abort`. */
export class SpoolWriter {
  readonly #parts: WriterParts;
  readonly #hash = createHash('sha256');
  readonly #path: string;
  #file: Promise<FileHandle> | null = null;
  #size = 0;
  #reserved = 0;
  #ended = false;
  #sha256: string | null = null;

  constructor(parts: WriterParts) {
    this.#parts = parts;
    this.#path = join(parts.root, 'tmp', `${randomUUID()}.part`);
  }

  /** Bytes written so far. */
  get size(): number {
    return this.#size;
  }

  /** One call at a time. */
  async write(...chunks: Uint8Array[]): Promise<void> {
    if (this.#ended || this.#sha256 !== null) throw new TypeError('The writer has ended');
    const bytes = chunks.reduce((sum, { length }) => sum + length, 0);
    this.#parts.reserve(bytes);
    this.#reserved += bytes;
    const file = await this.#opened();
    if (this.#parts.hash) for (const chunk of chunks) this.#hash.update(chunk);
    for (let left = chunks; left.length > 0; ) {
      const { bytesWritten } = await file.writev(left);
      left = after(left, bytesWritten);
    }
    this.#size += bytes;
  }

  /** Lower-case hex of all that was written; ends the writing. */
  tensorsSha256(): string {
    this.#sha256 ??= this.#hash.digest('hex');
    return this.#sha256;
  }

  /** Throws `not_this_digest` if config and bytes are not of this digest. No fsync: what a power cut spoils is noticed. */
  async commit(digest: string, meta: RevisionMeta): Promise<void> {
    if (this.#ended) throw new TypeError('The writer has ended');
    const tensorsSha256 = this.#parts.hash ? this.tensorsSha256() : meta.tensorsSha256;
    if (tensorsSha256 === undefined || revisionDigest(meta.config, tensorsSha256) !== digest) {
      await this.abort();
      throw new SpoolError(
        'not_this_digest',
        'The bytes written to the spool are not of the digest they should have',
      );
    }
    await (await this.#opened()).close();
    const entry: Entry = { config: meta.config, step: meta.step ?? null, size: this.#size, tensorsSha256 };
    const metaPath = `${this.#path}.json`;
    writeFileSync(metaPath, JSON.stringify(entry), { flag: 'wx', mode: 0o600 });
    moveIntoPlace(this.#parts.root, digest, { tensors: this.#path, meta: metaPath });
    this.#ended = true;
    this.#parts.adopt(digest, entry);
  }

  /** Harmless after the end. */
  async abort(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#parts.release(this.#reserved);
    // A write may be under way: what it opens has to be closed too.
    const file = await this.#file?.catch(() => null);
    await file?.close().catch(() => undefined);
    await rm(this.#path, { force: true });
    await rm(`${this.#path}.json`, { force: true });
  }

  #opened(): Promise<FileHandle> {
    this.#file ??= open(this.#path, CREATE, 0o600);
    return this.#file;
  }
}

/** What is left of the chunks behind so many of their bytes. */
function after(chunks: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let skipped = 0;
  return chunks.flatMap((chunk) => {
    const left = chunk.subarray(Math.min(chunk.length, Math.max(0, bytes - skipped)));
    skipped += chunk.length;
    return left.length === 0 ? [] : [left];
  });
}
