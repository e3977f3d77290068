import { createHash, type Hash } from 'node:crypto';
import { parentPort } from 'node:worker_threads';
import type { HashMessage, HashReply } from './hash-thread.ts';

const running = new Map<number, Hash>();

parentPort?.on('message', ({ id, chunks, ends }: HashMessage) => {
  const hash = running.get(id) ?? createHash('sha256');
  running.set(id, hash);
  for (const chunk of chunks) {
    hash.update(chunk);
    // Else it waits for a collection of the whole heap, and the kernel must clear new pages for the next.
    (chunk.buffer as ArrayBuffer).transfer(0);
  }
  if (ends === undefined) return;
  running.delete(id);
  if (ends === 'whole') {
    parentPort?.postMessage({ id, sha256: hash.digest('hex') } satisfies HashReply);
  }
});
