import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { lines } from '../../../operator/kube/body.ts';

describe('lines', () => {
  it('are the same wherever the chunks are cut, even within a character', async () => {
    const text = fc.string({ unit: 'grapheme' }).map((line) => line.replaceAll('\n', ''));
    await fc.assert(
      fc.asyncProperty(fc.array(text), fc.array(fc.integer({ min: 1, max: 7 })), async (written, sizes) => {
        const bytes = Buffer.from(written.map((line) => `${line}\n`).join(''));
        async function* chunks(): AsyncGenerator<Uint8Array> {
          for (let at = 0, cut = 0; at < bytes.length; cut += 1) {
            const size = sizes[cut % sizes.length] ?? 1;
            yield bytes.subarray(at, at + size);
            at += size;
          }
        }
        const read: string[] = [];
        for await (const line of lines(chunks(), () => {})) read.push(line);
        expect(read).toEqual(written.filter((line) => line !== ''));
      }),
    );
  });
});
