import { Readable } from 'node:stream';

/**
 * A request body that gives up when the receiver does not take the next chunk for `stallMs`. Time spent waiting for the
 * source of the bytes does not count: a slow trainer is not the pod's fault.
 */
export function stallGuarded(
  source: AsyncIterable<Uint8Array> | Buffer,
  stallMs: number,
  onStall: () => void,
): Readable {
  const chunks = Buffer.isBuffer(source) ? sliced(source) : source;
  return Readable.from(guard(chunks, stallMs, onStall), { objectMode: false, highWaterMark: 256 * 1024 });
}

async function* guard(
  chunks: AsyncIterable<Uint8Array>,
  stallMs: number,
  onStall: () => void,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    const timer = setTimeout(onStall, stallMs);
    try {
      yield chunk;
    } finally {
      clearTimeout(timer);
    }
  }
}

async function* sliced(bytes: Buffer): AsyncGenerator<Uint8Array> {
  const sliceBytes = 256 * 1024;
  for (let at = 0; at < bytes.length; at += sliceBytes) yield bytes.subarray(at, at + sliceBytes);
}
