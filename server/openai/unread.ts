import { Readable } from 'node:stream';
import type { FastifyReply } from 'fastify';

/** A client that takes no byte for so long is cut off. */
export const STALL_MS_MAX = 60_000;

/** Pieces of an answer as they are taken; `cutOff` where one is not taken in time. */
export function patiently(pieces: AsyncIterable<string>, cutOff: () => void): Readable {
  return Readable.from(watched(pieces, cutOff), { objectMode: false });
}

async function* watched(pieces: AsyncIterable<string>, cutOff: () => void): AsyncGenerator<string> {
  for await (const piece of pieces) {
    const timer = setTimeout(cutOff, STALL_MS_MAX);
    try {
      yield piece;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** For what still waits in the server once an answer is whole. */
export function cutOffUnread({ raw }: FastifyReply): void {
  raw.once('prefinish', () => {
    const timer = setTimeout(() => raw.destroy(), STALL_MS_MAX);
    raw.once('close', () => clearTimeout(timer));
  });
}
