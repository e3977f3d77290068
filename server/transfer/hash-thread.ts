import { createHash } from 'node:crypto';
import { Worker } from 'node:worker_threads';

/** To hand less over would take as long as to hash it. */
const BATCH_BYTES = 1 << 20;

/** What the thread is told of a hash: bytes of it, in order, and then that it is whole or in vain. */
export interface HashMessage {
  id: number;
  chunks: Uint8Array[];
  ends?: 'whole' | 'in vain';
}

export interface HashReply {
  id: number;
  sha256: string;
}

/** A SHA-256 of bytes that arrive. */
export interface RunningHash {
  /** Nobody may read the chunk after this: another thread may have its memory. */
  take(chunk: Uint8Array): void;
  /** Lower-case hex. */
  digest(): Promise<string>;
  /** Where nobody wants to know any more; also after `digest`. */
  abandon(): void;
}

/**
 * A thread that hashes bytes while the next ones arrive, so that requests of others are not kept waiting: 84 MB are some
 * 45 ms of work. It starts with the first of them and does not keep the process alive.
 */
export class HashThread {
  readonly #results = new Map<number, PromiseWithResolvers<string>>();
  #worker: Worker | null = null;
  #begun = 0;

  /** Null for as many as come. A few are hashed by the thread that asks. */
  begin(bytes: number | null): RunningHash {
    if (bytes !== null && bytes < BATCH_BYTES) return hashHere();
    const id = ++this.#begun;
    const result = Promise.withResolvers<string>();
    // It may fail before anybody asks for it.
    result.promise.catch(() => {});
    this.#results.set(id, result);
    this.#worker ??= this.#start();
    const worker = this.#worker;
    let chunks: Uint8Array[] = [];
    let waitingBytes = 0;
    const tell = (ends?: HashMessage['ends']) => {
      const message: HashMessage = { id, chunks, ...(ends === undefined ? {} : { ends }) };
      worker.postMessage(
        message,
        chunks.map(({ buffer }) => buffer as ArrayBuffer),
      );
      [chunks, waitingBytes] = [[], 0];
    };
    return {
      take: (chunk) => {
        chunks.push(alone(chunk));
        waitingBytes += chunk.length;
        if (waitingBytes >= BATCH_BYTES) tell();
      },
      digest: () => {
        tell('whole');
        return result.promise;
      },
      abandon: () => {
        if (!this.#results.delete(id)) return;
        chunks = [];
        tell('in vain');
      },
    };
  }

  #start(): Worker {
    const worker = new Worker(new URL('./hash-worker.ts', import.meta.url));
    worker.unref();
    worker.on('message', ({ id, sha256 }: HashReply) => {
      this.#results.get(id)?.resolve(sha256);
      this.#results.delete(id);
    });
    worker.on('error', (error) => this.#fail(error));
    return worker;
  }

  /** The next hash gets a new thread. */
  #fail(error: unknown): void {
    for (const { reject } of this.#results.values()) reject(error);
    this.#results.clear();
    this.#worker = null;
  }
}

/** On this thread, and at once: a chunk may be read again after that. */
export function hashHere(): RunningHash {
  const hash = createHash('sha256');
  return {
    take: (chunk) => void hash.update(chunk),
    digest: async () => hash.digest('hex'),
    abandon: () => {},
  };
}

/** A part of a pool has others beside it, which may not go with it. */
function alone(chunk: Uint8Array): Uint8Array {
  const { buffer, byteLength } = chunk;
  return buffer instanceof ArrayBuffer && buffer.byteLength === byteLength ? chunk : new Uint8Array(chunk);
}
