import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { SAFETENSORS_HEADER_BYTES_MAX } from '../../../server/contract/adapter-api.ts';
import {
  headerLength,
  parseHeader,
  requireExactLength,
} from '../../../server/contract/format/safetensors.ts';
import { f32, packSafetensors, withMetadata } from '../../support/adapter-files.ts';
import { cpuMs } from '../../support/cpu-time.ts';
import { refusalOf } from './refusal.ts';

const FIXTURES = new URL('../../fixtures/', import.meta.url);

function read(file: Buffer) {
  const header = parseHeader(file.subarray(0, headerLength(file)));
  requireExactLength(header, file.length);
  return header;
}

/** A file whose header is this text, with so many bytes of data. */
function fileOf(header: string, dataBytes = 0): Buffer {
  const json = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, Buffer.alloc(dataBytes)]);
}

const entry = (fields: string) => `{"t": {${fields}}}`;

describe('safetensors headers', () => {
  it('reads what PEFT writes', () => {
    const header = read(readFileSync(new URL('parrot/adapters/json/adapter_model.safetensors', FIXTURES)));
    expect(header.metadata).toEqual({ format: 'pt' });
    expect(header.tensors).toHaveLength(56);
    expect(header.tensors[0]).toEqual({
      name: 'base_model.model.model.layers.0.mlp.down_proj.lora_A.weight',
      dtype: 'BF16',
      shape: [4, 640],
      begin: header.dataOffset,
      end: header.dataOffset + 5120,
    });
    expect(header.totalBytes).toBe(146_344);
  });

  it('orders tensors by their bytes, not by their names', () => {
    const file = fileOf(
      '{"b": {"dtype":"U8","shape":[1],"data_offsets":[1,2]}, "a": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
      2,
    );
    expect(read(file).tensors.map(({ name }) => name)).toEqual(['a', 'b']);
  });

  it('reads metadata, scalars and unaligned data', () => {
    const file = withMetadata(packSafetensors(new Map([['x', f32([2, 2], (i) => i)]])), { note: '{"a": 1}' });
    expect(read(file).metadata).toEqual({ note: '{"a": 1}' });
    const scalar = read(fileOf(`${entry('"dtype":"U8","shape":[],"data_offsets":[0,1]')} `, 1));
    expect(scalar.tensors[0]?.shape).toEqual([]);
    expect(scalar.dataOffset % 8).not.toBe(0);
  });

  it.each([
    ['no dtype', '"shape":[1],"data_offsets":[0,1]'],
    ['an unknown field', '"dtype":"U8","shape":[1],"data_offsets":[0,1],"stride":[1]'],
    ['a shape that is no list', '"dtype":"U8","shape":1,"data_offsets":[0,1]'],
    ['four dimensions', '"dtype":"U8","shape":[1,1,1,1],"data_offsets":[0,1]'],
    ['a size as 1e0', '"dtype":"U8","shape":[1e0],"data_offsets":[0,1]'],
    ['a size as text', '"dtype":"U8","shape":["1"],"data_offsets":[0,1]'],
    ['three offsets', '"dtype":"U8","shape":[1],"data_offsets":[0,1,1]'],
    ['one offset', '"dtype":"U8","shape":[1],"data_offsets":[0]'],
    ['a product that wraps', '"dtype":"U8","shape":[9007199254740991,9007199254740991],"data_offsets":[0,1]'],
  ])('refuses %s', (_what, fields) => {
    expect(refusalOf(() => read(fileOf(entry(fields), 1))).code).toBe('malformed_safetensors');
  });

  it.each([
    ['a dimension of none', '"dtype":"U8","shape":[0],"data_offsets":[0,0]', 0],
    ['none times many', '"dtype":"U8","shape":[0,9007199254740991],"data_offsets":[0,0]', 0],
    ['bytes before the first tensor', '"dtype":"U8","shape":[1],"data_offsets":[1,2]', 2],
    ['bytes after the last tensor', '"dtype":"U8","shape":[1],"data_offsets":[0,1]', 2],
  ])('refuses %s in a file of the right length', (_what, fields, dataBytes) => {
    expect(refusalOf(() => read(fileOf(entry(fields), dataBytes))).code).toBe('malformed_safetensors');
  });

  it('refuses bytes between two tensors and bytes of two tensors', () => {
    const pair = (begin: number) =>
      `{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[${begin},${begin + 2}]}}`;
    expect(read(fileOf(pair(2), 4)).tensors).toHaveLength(2);
    expect(refusalOf(() => read(fileOf(pair(3), 5))).message).toContain('gap');
    expect(refusalOf(() => read(fileOf(pair(1), 3))).message).toContain('overlaps');
  });

  it.each([
    ['a NUL', 'a\\u0000'],
    ['a line break', 'a\\r\\nX-Injected: 1'],
    ['a path', '../../etc/passwd'],
    ['a right-to-left mark', 'a\\u202e'],
    ['no name', ''],
    ['300 characters', 'a'.repeat(300)],
  ])('refuses a name with %s', (_what, name) => {
    const file = fileOf(`{"${name}": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1);
    const refusal = refusalOf(() => read(file));
    expect(refusal.code).toBe('malformed_safetensors');
    expect(`${refusal.message}${refusal.actual}`).toMatch(/^[\x20-\x7e]+$/);
  });

  it('refuses a dtype that it does not know by its name', () => {
    const refusal = refusalOf(() => read(fileOf(entry('"dtype":"F4","shape":[1],"data_offsets":[0,1]'), 1)));
    expect(refusal).toMatchObject({ code: 'unsupported_dtype', field: 't', actual: 'F4' });
  });

  it('refuses white space before the header, and metadata that is not text', () => {
    expect(refusalOf(() => read(fileOf(' {}'))).message).toContain('"{"');
    expect(refusalOf(() => read(fileOf('{"__metadata__": {"a": 1}}'))).field).toBe('__metadata__');
  });

  it.each([
    ['a pickle', Buffer.from([0x80, 4, 0x95, 0, 0, 0, 0, 1])],
    ['a ZIP archive', Buffer.from('PK\x03\x04abcd')],
    ['a GGUF file', Buffer.from('GGUF\x03\0\0\0')],
  ])('tells %s from a header that is too long', (what, file) => {
    expect(refusalOf(() => headerLength(file)).message).toContain(what);
  });

  it('measures a header before it is there', () => {
    expect(headerLength(fileOf('{}'))).toBe(10);
    expect(refusalOf(() => headerLength(Buffer.alloc(8))).code).toBe('malformed_safetensors');
    const large = Buffer.alloc(8);
    large.writeBigUInt64LE(BigInt(SAFETENSORS_HEADER_BYTES_MAX) + 1n);
    expect(refusalOf(() => headerLength(large)).actual).toBe('1048577');
  });

  it('refuses 10,000 tensors within two seconds of processor time', () => {
    const entries = Array.from(
      { length: 10_000 },
      (_, i) => `"t${i}":{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`,
    );
    const file = fileOf(`{${entries.join()}}`, 10_000);
    const refuse = () => expect(refusalOf(() => read(file)).message).toContain('at most 8192 tensors');
    expect(cpuMs(refuse)).toBeLessThan(2000);
  });
});
