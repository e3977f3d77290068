import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { headerLength, type SafetensorsHeader } from '../../../server/contract/format/safetensors.ts';
import { HashingReader, TensorsReader } from '../../../server/transfer/tensors-reader.ts';
import { goodAdapter } from '../../support/adapter-files.ts';
import { refusalOf } from '../contract/refusal.ts';

const { tensors: FILE } = goodAdapter();
const HEADER_END = headerLength(FILE);

const EXPECTED = {
  declaredBytes: null as number | null,
  maxBytes: FILE.length,
  accept: ({ totalBytes }: SafetensorsHeader) => totalBytes,
};

function readerOf(expectation: Partial<typeof EXPECTED> = {}) {
  return new TensorsReader({ ...EXPECTED, ...expectation });
}

function feed(
  reader: Pick<TensorsReader<unknown>, 'push'>,
  file: Uint8Array,
  chunkBytes: number,
): (Uint8Array | null)[] {
  const chunks = Math.ceil(file.length / chunkBytes);
  return Array.from({ length: chunks }, (_, i) =>
    reader.push(file.subarray(i * chunkBytes, (i + 1) * chunkBytes)),
  );
}

describe('tensors that arrive', () => {
  it.each([1, 7, 8, 9, HEADER_END, FILE.length])(
    'are handed on whole and hashed, %i bytes at a time',
    (n) => {
      const reader = new HashingReader({ ...EXPECTED, declaredBytes: FILE.length });
      const parts = feed(reader, FILE, n).filter((part) => part !== null);
      expect(Buffer.concat(parts).equals(FILE)).toBe(true);
      const tensorsSha256 = createHash('sha256').update(FILE).digest('hex');
      expect(reader.finish()).toEqual({ accepted: FILE.length, tensorsSha256 });
    },
  );

  it('are not handed on before their header is accepted', () => {
    const seen: SafetensorsHeader[] = [];
    const reader = new TensorsReader({
      declaredBytes: null,
      maxBytes: FILE.length,
      accept: (header) => seen.push(header),
    });
    expect(feed(reader, FILE.subarray(0, HEADER_END - 1), 100).every((part) => part === null)).toBe(true);
    expect([seen, reader.accepted]).toEqual([[], null]);
    expect(reader.push(FILE.subarray(HEADER_END - 1, HEADER_END))?.length).toBe(HEADER_END);
    expect([seen.length, reader.accepted]).toEqual([1, 1]);
  });

  it.each([0, 7, 8, HEADER_END - 1, HEADER_END, FILE.length - 1])(
    'are refused when they end after %i bytes',
    (n) => {
      const reader = readerOf();
      feed(reader, FILE.subarray(0, n), 1000);
      expect(refusalOf(() => reader.finish()).code).toBe('malformed_safetensors');
    },
  );

  it('are refused at the first byte too many, or by their header alone', () => {
    const longer = Buffer.concat([FILE, Buffer.alloc(1)]);
    expect(refusalOf(() => feed(readerOf(), longer, 1000)).message).toContain('trailing bytes');
    const head = FILE.subarray(0, HEADER_END);
    const declared = readerOf({ declaredBytes: FILE.length + 1 });
    expect(refusalOf(() => declared.push(head)).code).toBe('malformed_safetensors');
    const small = readerOf({ maxBytes: FILE.length - 1 });
    expect(refusalOf(() => small.push(head)).code).toBe('body_too_large');
  });
});
