import { createHash } from 'node:crypto';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { HashThread, type RunningHash } from '../../../server/transfer/hash-thread.ts';

const CHUNK_BYTES = 65_536;
const MANY = 100;

/** As a socket has them: each in memory of its own. */
function chunksOf(seed: number): Buffer[] {
  return Array.from({ length: MANY }, (_, index) =>
    Buffer.allocUnsafeSlow(CHUNK_BYTES).fill((seed + index) % 251),
  );
}

function sha256(chunks: Uint8Array[]): string {
  return chunks.reduce((hash, chunk) => hash.update(chunk), createHash('sha256')).digest('hex');
}

function takeAll(hash: RunningHash, chunks: Uint8Array[]): void {
  for (const chunk of chunks) hash.take(chunk);
}

describe('a hash thread', () => {
  it.each([null, 0, MANY * CHUNK_BYTES])('hashes in the order of the chunks, of %s bytes', async (bytes) => {
    const hash = new HashThread().begin(bytes);
    takeAll(hash, chunksOf(0));
    expect(await hash.digest()).toBe(sha256(chunksOf(0)));
  });

  it('takes the memory of the chunks, but not what others lie in', async () => {
    const hash = new HashThread().begin(null);
    const [own, pool] = [chunksOf(1), Buffer.allocUnsafeSlow(MANY * CHUNK_BYTES).fill(7)];
    takeAll(hash, [...own, pool.subarray(1)]);
    expect(await hash.digest()).toBe(sha256([...chunksOf(1), Buffer.alloc(pool.length - 1, 7)]));
    expect([own[0]?.length, pool.length]).toEqual([0, MANY * CHUNK_BYTES]);
  });

  it('keeps bodies apart that arrive at once, and drops those in vain', async () => {
    const thread = new HashThread();
    const hashes = [1, 2, 3].map(() => thread.begin(null));
    const bodies = [1, 2, 3].map(chunksOf);
    for (let at = 0; at < MANY; at += 1) {
      for (const [index, hash] of hashes.entries()) hash.take(bodies[index]?.[at] as Buffer);
    }
    hashes[1]?.abandon();
    const digests = await Promise.all([hashes[2]?.digest(), hashes[0]?.digest()]);
    expect(digests).toEqual([sha256(chunksOf(3)), sha256(chunksOf(1))]);
    hashes[0]?.abandon();
    const later = thread.begin(null);
    takeAll(later, chunksOf(4));
    expect(await later.digest()).toBe(sha256(chunksOf(4)));
  });

  it('fails what a dying thread had, and hashes the next with a new one', async () => {
    const started = Promise.withResolvers<Worker>();
    const onStart = (message: unknown) => started.resolve((message as { worker: Worker }).worker);
    subscribe('worker_threads', onStart);
    const thread = new HashThread();
    const doomed = thread.begin(null);
    const worker = await started.promise;
    unsubscribe('worker_threads', onStart);
    worker.postMessage(null);
    await expect(doomed.digest()).rejects.toThrow(TypeError);
    const next = thread.begin(null);
    takeAll(next, chunksOf(0));
    expect(await next.digest()).toBe(sha256(chunksOf(0)));
  });
});
