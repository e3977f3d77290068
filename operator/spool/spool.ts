import { createHash } from 'node:crypto';
import { rmSync, utimesSync } from 'node:fs';
import { constants, open as openFile } from 'node:fs/promises';
import { type Entry, pathsOf, prepareSpoolDir, scanSpool } from './spool-dir.ts';
import { SpoolError } from './spool-error.ts';
import { SpoolWriter } from './spool-writer.ts';

export interface SpooledRevision {
  config: unknown;
  step: number | null;
  /** Bytes of the safetensors file. */
  size: number;
  /** Throws SpoolError before the last byte if the file is not what the digest says, and forgets it. */
  stream(): AsyncIterable<Uint8Array>;
}

const CHUNK_BYTES = 256 * 1024;

/**
 * Revisions on disk, found by digest: what new pods are seeded from. A cache: it forgets the least recently used
 * revision that nobody pinned, it may forget all, and nothing in it is believed unchecked. One process owns the folder.
 *
 *   DIR/v1/tmp/RANDOM.part          being written, removed at start
 *   DIR/v1/sha256/ab/cdef…          the safetensors bytes, renamed into place
 *   DIR/v1/sha256/ab/cdef….json     config, step and hash, renamed into place last: without it there is no revision
 */
export class Spool {
  readonly #root: string;
  readonly #maxBytes: number;
  /** Least recently used first. */
  readonly #entries: Map<string, Entry>;
  readonly #owners = new Map<string, Set<string>>();
  #usedBytes = 0;

  constructor({ dir, maxBytes }: { dir: string; maxBytes: number }) {
    this.#root = prepareSpoolDir(dir);
    this.#maxBytes = maxBytes;
    this.#entries = scanSpool(this.#root);
    for (const entry of this.#entries.values()) this.#usedBytes += entry.size;
    this.#evictFor(0);
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get maxBytes(): number {
    return this.#maxBytes;
  }

  get pinnedBytes(): number {
    const pinned = [...this.#entries].filter(([digest]) => this.#owners.has(digest));
    return pinned.reduce((bytes, [, { size }]) => bytes + size, 0);
  }

  /** Digests, least recently used first. */
  list(): string[] {
    return [...this.#entries.keys()];
  }

  has(digest: string): boolean {
    return this.#entries.has(digest);
  }

  /** `hash: false` where the caller hashes anyway and hands `tensorsSha256` to `commit`. */
  begin({ hash = true }: { hash?: boolean } = {}): SpoolWriter {
    return new SpoolWriter({
      root: this.#root,
      hash,
      reserve: (bytes) => this.#reserve(bytes),
      release: (bytes) => {
        this.#usedBytes -= bytes;
      },
      adopt: (digest, entry) => this.#adopt(digest, entry),
    });
  }

  open(digest: string): SpooledRevision | null {
    const entry = this.#entries.get(digest);
    if (!entry) return null;
    this.#touch(digest, entry);
    const { config, step, size } = entry;
    return { config, step, size, stream: () => this.#stream(digest, entry) };
  }

  /** Keeps a revision, present or to come, for as long as any owner pins it. Pinning twice is pinning once. */
  pin(digest: string, owner = ''): void {
    const owners = this.#owners.get(digest) ?? new Set();
    this.#owners.set(digest, owners.add(owner));
  }

  unpin(digest: string, owner = ''): void {
    const owners = this.#owners.get(digest);
    owners?.delete(owner);
    if (owners?.size === 0) this.#owners.delete(digest);
  }

  async *#stream(digest: string, entry: Entry): AsyncGenerator<Uint8Array> {
    const { tensors } = pathsOf(this.#root, digest);
    const file = await openFile(tensors, constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => null);
    if (file === null) {
      this.#forget(digest, entry);
      throw new SpoolError('gone', 'The spool no longer holds this revision');
    }
    const hash = createHash('sha256');
    let size = 0;
    // The last chunk waits until the whole has been checked, so that nobody gets a complete file that is wrong.
    let held: Uint8Array | null = null;
    for await (const chunk of file.createReadStream({ highWaterMark: CHUNK_BYTES })) {
      if (held !== null) yield held;
      held = chunk as Buffer;
      hash.update(held);
      size += held.length;
    }
    if (size !== entry.size || hash.digest('hex') !== entry.tensorsSha256) {
      this.#forget(digest, entry);
      throw new SpoolError('corrupt', 'A file of the spool is not what its digest says');
    }
    if (held !== null) yield held;
  }

  #adopt(digest: string, entry: Entry): void {
    const previous = this.#entries.get(digest);
    if (previous) this.#usedBytes -= previous.size;
    this.#entries.delete(digest);
    this.#entries.set(digest, entry);
  }

  #touch(digest: string, entry: Entry): void {
    this.#entries.delete(digest);
    this.#entries.set(digest, entry);
    const now = new Date();
    try {
      utimesSync(pathsOf(this.#root, digest).meta, now, now);
    } catch {
      // Recency across a restart is lost for a file that is gone; `stream` will say that it is.
    }
  }

  #forget(digest: string, entry: Entry): void {
    if (this.#entries.get(digest) !== entry) return;
    this.#entries.delete(digest);
    this.#usedBytes -= entry.size;
    const { tensors, meta } = pathsOf(this.#root, digest);
    rmSync(meta, { force: true });
    rmSync(tensors, { force: true });
  }

  #reserve(bytes: number): void {
    this.#evictFor(bytes);
    if (this.#usedBytes + bytes > this.#maxBytes) {
      throw new SpoolError('full', `The spool of ${this.#maxBytes} bytes is full of revisions in use`);
    }
    this.#usedBytes += bytes;
  }

  #evictFor(bytes: number): void {
    for (const [digest, entry] of this.#entries) {
      if (this.#usedBytes + bytes <= this.#maxBytes) return;
      if (!this.#owners.has(digest)) this.#forget(digest, entry);
    }
  }
}
