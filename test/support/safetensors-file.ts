import { createHash } from 'node:crypto';

export interface TensorSpec {
  name: string;
  dtype: 'F32' | 'F16' | 'BF16';
  shape: number[];
}

export interface Layout {
  /** The 8 length bytes and the JSON header. */
  head: Buffer;
  /** Bytes of the whole file. */
  totalBytes: number;
}

/** The head of a safetensors file whose data is the tensors in order, without gaps. */
export function safetensorsLayout(tensors: TensorSpec[], metadata?: Record<string, string>): Layout {
  let offset = 0;
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
  for (const { name, dtype, shape } of tensors) {
    const bytes = shape.reduce((product, size) => product * size, dtype === 'F32' ? 4 : 2);
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = JSON.stringify(header);
  const text = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return { head: Buffer.concat([length, text]), totalBytes: 8 + text.length + offset };
}

/** Seeded bf16 noise of about ±`scale`, always finite. */
export function bf16Noise(values: number, seed: string, scale: 0.01 | 0.1 = 0.01): Buffer {
  const noise = Buffer.alloc(values * 2);
  const block = createHash('sha512').update(seed).digest();
  // Exponents around the scale, any mantissa, either sign: bf16 = sign 1, exponent 8, mantissa 7.
  const exponent = scale === 0.01 ? 120 : 123;
  for (let i = 0; i < values; i++) {
    const random = (block[i % 64] ?? 0) ^ ((i * 2_654_435_761) >>> 24);
    noise.writeUInt16LE(((random & 0x80) << 8) | (exponent << 7) | (random & 0x7f), i * 2);
  }
  return noise;
}
