/**
 * Gives the memory of a chunk back that was copied and that nobody else has. Else its 64 KiB wait for a collection of the
 * whole heap, which 84 MB of them bring about three times, and each chunk has pages that the kernel must clear first.
 */
export function giveBack(chunk: Uint8Array): void {
  const { buffer, byteLength } = chunk;
  // A part of a pool has others beside it.
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0);
}
