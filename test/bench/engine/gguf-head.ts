// The head of a GGUF file, version 3: magic, version, counts, key-value pairs, tensor descriptions, padding.

const MAGIC = 0x46554747;
const VERSION = 3;
export const GGUF_ALIGNMENT = 32;

export const GGML_F32 = 0;
export const GGML_BF16 = 30;

export type GgufValue =
  | { type: 'u32'; value: number }
  | { type: 'f32'; value: number }
  | { type: 'string'; value: string }
  | { type: 'strings'; value: string[] }
  | { type: 'f32s'; value: Float32Array }
  | { type: 'i32s'; value: Int32Array };

export interface GgufTensor {
  name: string;
  /** Rows first, as everywhere here; the file has them the other way round. */
  shape: number[];
  ggmlType: number;
  bytes: number;
}

/** The head, and behind it every tensor is to follow from a multiple of `GGUF_ALIGNMENT`. */
export function ggufHead(metadata: Record<string, GgufValue>, tensors: GgufTensor[]): Buffer {
  const entries = Object.entries(metadata);
  const parts = [u32(MAGIC), u32(VERSION), u64(tensors.length), u64(entries.length)];
  for (const [key, value] of entries) parts.push(text(key), ...encode(value));
  let offset = 0;
  for (const { name, shape, ggmlType, bytes } of tensors) {
    parts.push(text(name), u32(shape.length), ...shape.toReversed().map(u64), u32(ggmlType), u64(offset));
    offset += bytes + paddingOf(bytes);
  }
  const head = Buffer.concat(parts);
  return Buffer.concat([head, Buffer.alloc(paddingOf(head.length))]);
}

export function paddingOf(bytes: number): number {
  return (GGUF_ALIGNMENT - (bytes % GGUF_ALIGNMENT)) % GGUF_ALIGNMENT;
}

/** The number of a type, then the value; arrays have 9, the type of their elements and their length. */
function encode(value: GgufValue): Buffer[] {
  switch (value.type) {
    case 'u32':
      return [u32(4), u32(value.value)];
    case 'f32':
      return [u32(6), Buffer.from(Float32Array.of(value.value).buffer)];
    case 'string':
      return [u32(8), text(value.value)];
    case 'strings':
      return [u32(9), u32(8), u64(value.value.length), ...value.value.map(text)];
    case 'f32s':
      return [u32(9), u32(6), u64(value.value.length), Buffer.from(value.value.buffer)];
    case 'i32s':
      return [u32(9), u32(5), u64(value.value.length), Buffer.from(value.value.buffer)];
  }
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}
