import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LorikeetError } from '../../server/contract/errors.ts';
import { parseAdapterConfig } from '../../server/contract/format/adapter-config.ts';
import { bindAdapter } from '../../server/contract/format/bind.ts';
import { headerLength, parseHeader, requireExactLength } from '../../server/contract/format/safetensors.ts';
import { parseStrictJson, StrictJsonError } from '../../server/contract/strict-json.ts';
import { CONFIG, goodTensors, packSafetensors } from '../support/adapter-files.ts';
import { PARROT_GEOMETRY } from '../support/parrot-geometry.ts';

const GOOD = packSafetensors(goodTensors());
const GOOD_HEADER = JSON.parse(GOOD.toString('utf8', 8, headerLength(GOOD))) as Record<string, object>;
const RUNS = { numRuns: 2000, seed: 20261124 };

/** A refusal or a result; anything else is a crash. */
function outcome<T>(read: () => T): { value: T } | { refusal: Error } {
  try {
    return { value: read() };
  } catch (error) {
    if (error instanceof LorikeetError || error instanceof StrictJsonError) return { refusal: error };
    throw error;
  }
}

function readFile(file: Buffer) {
  const header = parseHeader(file.subarray(0, headerLength(file)));
  requireExactLength(header, file.length);
  return header;
}

/** The format's rules once more, as simply as they can be said, over whatever a plain JSON.parse makes of the header. */
function obeysTheRules(file: Buffer): boolean {
  const end = 8 + Number(file.readBigUInt64LE());
  const root = JSON.parse(file.toString('utf8', 8, end)) as Record<string, unknown>;
  const spans: [number, number][] = [];
  for (const [name, value] of Object.entries(root)) {
    if (name === '__metadata__') continue;
    const { dtype, shape, data_offsets } = value as {
      dtype: string;
      shape: number[];
      data_offsets: [number, number];
    };
    const bits: Record<string, number> = {
      F64: 64,
      F32: 32,
      F16: 16,
      BF16: 16,
      I64: 64,
      I32: 32,
      I16: 16,
      I8: 8,
      U8: 8,
    };
    const bytes = shape.reduce((a, b) => a * b, (bits[dtype] ?? Number.NaN) / 8);
    if (![...shape, ...data_offsets].every((n) => Number.isSafeInteger(n) && n >= 0)) return false;
    if (data_offsets[1] - data_offsets[0] !== bytes || !/^[\w.-]{1,256}$/.test(name)) return false;
    spans.push(data_offsets);
  }
  spans.sort((a, b) => a[0] - b[0]);
  const last = spans.reduce((at, [begin, stop]) => (begin === at ? stop : Number.NaN), 0);
  return end + last === file.length;
}

function withHeader(header: string | Uint8Array, data = GOOD.subarray(headerLength(GOOD))): Buffer {
  const bytes = Buffer.from(header as string);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([length, bytes, data]);
}

const names = Object.keys(GOOD_HEADER);
const size = fc.oneof(
  fc.nat(1 << 17),
  fc.constantFrom(-1, 0, 0.5, 8, 256, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 63, 1e308),
);
const strange = fc.oneof(size, fc.jsonValue({ maxDepth: 2 }));
const field = fc.constantFrom('dtype', 'shape', 'data_offsets', 'extra');
const changedValue = fc.oneof(
  fc.constantFrom('F32', 'F16', 'I8', 'F4', ''),
  fc.array(size, { maxLength: 4 }),
  fc.tuple(size, size),
  strange,
);

describe('parsers under random input', () => {
  it('neither crash on nor accept a header with one field changed against the rules', () => {
    fc.assert(
      fc.property(fc.constantFrom(...names), field, changedValue, (name, key, value) => {
        const header = { ...GOOD_HEADER, [name]: { ...GOOD_HEADER[name], [key]: value } };
        const file = withHeader(JSON.stringify(header));
        const result = outcome(() => readFile(file));
        if ('value' in result) expect(obeysTheRules(file)).toBe(true);
      }),
      RUNS,
    );
  });

  it('neither crash on nor accept a file with bytes changed against the rules', () => {
    const edit = fc.record({ at: fc.nat(headerLength(GOOD) - 1), byte: fc.nat(255) });
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
        const file = Buffer.from(GOOD);
        for (const { at, byte } of edits) file[at] = byte;
        const result = outcome(() => readFile(file));
        if ('value' in result) expect(obeysTheRules(file)).toBe(true);
      }),
      RUNS,
    );
  });

  it('never take random bytes for a file', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        expect(outcome(() => readFile(withHeader(bytes)))).toHaveProperty('refusal');
      }),
      RUNS,
    );
  });

  it('bind tensors of random names and shapes only where every factor lies inside the file', () => {
    const dimension = fc.constantFrom(1, 4, 8, 64, 255, 256);
    fc.assert(
      fc.property(
        fc.constantFrom(...names),
        fc.constantFrom(...names, 'x', '__proto__'),
        dimension,
        dimension,
        (from, to, rows, columns) => {
          const tensors = goodTensors();
          const tensor = tensors.get(from);
          tensors.delete(from);
          if (tensor)
            tensors.set(to, { dtype: 'F32', shape: [rows, columns], data: Buffer.alloc(rows * columns * 4) });
          const file = packSafetensors(tensors);
          const config = parseAdapterConfig(Buffer.from(JSON.stringify(CONFIG)));
          const result = outcome(() =>
            bindAdapter(config, readFile(file), { geometry: PARROT_GEOMETRY, maxRank: 64 }),
          );
          if ('refusal' in result) return;
          for (const { module, rank, a, b } of result.value.modules) {
            const { in: inputs = 0, out: outputs = 0 } = PARROT_GEOMETRY.modules[module] ?? {};
            expect(a.offset + rank * inputs * 4).toBeLessThanOrEqual(file.length);
            expect(b.offset + rank * outputs * 4).toBeLessThanOrEqual(file.length);
          }
        },
      ),
      { numRuns: 100, seed: RUNS.seed },
    );
  });

  it('take a config with any key changed, or refuse it with a code', () => {
    const key = fc.oneof(
      fc.constantFrom(...Object.keys(CONFIG), 'layers_to_transform', 'layers_pattern', 'exclude_modules'),
      fc.string(),
    );
    fc.assert(
      fc.property(key, fc.oneof(strange, fc.string()), (name, value) => {
        const bytes = Buffer.from(JSON.stringify({ ...CONFIG, [name]: value }));
        const result = outcome(() => parseAdapterConfig(bytes));
        if ('value' in result)
          expect(typeof result.value.targets('model.layers.0.self_attn.q_proj')).toBe('boolean');
      }),
      RUNS,
    );
  });

  it('read JSON as JSON.parse does, or refuse it', () => {
    fc.assert(
      fc.property(fc.oneof(fc.json({ maxDepth: 6 }), fc.string({ unit: 'binary' })), (text) => {
        const result = outcome(() => parseStrictJson(Buffer.from(text), { depth: 16 }));
        if ('value' in result) expect(JSON.stringify(result.value)).toBe(JSON.stringify(JSON.parse(text)));
      }),
      RUNS,
    );
  });
});
