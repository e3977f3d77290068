import { SAFETENSORS_HEADER_BYTES_MAX } from '../adapter-api.ts';
import { expected, type LorikeetError, notStrictJson, type Want } from '../errors.ts';
import { parseStrictJson } from '../strict-json.ts';

export interface TensorInfo {
  name: string;
  dtype: string;
  shape: number[];
  /** Offsets in the file, not in its data part; row-major, `end - begin` bytes. */
  begin: number;
  end: number;
}

export interface SafetensorsHeader {
  metadata: Record<string, string>;
  /** In the order of their bytes. */
  tensors: TensorInfo[];
  /** Where the data part begins. */
  dataOffset: number;
  /** What the whole file must measure. */
  totalBytes: number;
}

export const TENSORS_MAX = 8192;
const DIMENSIONS_MAX = 3;
const NAME_BYTES_MAX = 256;
const NAME = /^[A-Za-z0-9._-]+$/;

const DTYPE_BYTES: ReadonlyMap<string, number> = new Map([
  ['F64', 8],
  ['F32', 4],
  ['F16', 2],
  ['BF16', 2],
  ['F8_E4M3', 1],
  ['F8_E5M2', 1],
  ['I64', 8],
  ['I32', 4],
  ['I16', 2],
  ['I8', 1],
  ['U64', 8],
  ['U32', 4],
  ['U16', 2],
  ['U8', 1],
  ['BOOL', 1],
]);

// What trainers upload by mistake; the same bytes read as a length are absurd, so only the message depends on this.
const FOREIGN_MAGIC: [string, string][] = [
  ['a pickle', '\x80\x02'],
  ['a pickle', '\x80\x04'],
  ['a pickle', '\x80\x05'],
  ['a ZIP archive, as torch.save writes it', 'PK'],
  ['a GGUF file', 'GGUF'],
];

/** Bytes of length prefix and JSON header together, from the first 8 bytes of a file. */
export function headerLength(first8: Uint8Array): number {
  if (first8.length < 8) {
    throw malformed('header', 'at least 8 bytes of safetensors', first8.length);
  }
  const view = new DataView(first8.buffer, first8.byteOffset, 8);
  const length = view.getBigUint64(0, true);
  if (length < 2n || length > BigInt(SAFETENSORS_HEADER_BYTES_MAX)) {
    const text = String.fromCharCode(...first8.subarray(0, 8));
    const foreign = FOREIGN_MAGIC.find(([, magic]) => text.startsWith(magic));
    const looks = foreign ? ` (this looks like ${foreign[0]})` : '';
    throw malformed('header', `2 to ${SAFETENSORS_HEADER_BYTES_MAX} bytes${looks}`, String(length));
  }
  return 8 + Number(length);
}

/**
 * Reads the header of a safetensors file: `bytes` are the first `headerLength()` bytes of it. Stricter than the
 * reference reader: unique names, known fields only, whole numbers, and tensors that fill the data part without gap
 * or overlap. Offsets need not be aligned.
 */
export function parseHeader(bytes: Uint8Array): SafetensorsHeader {
  const dataOffset = headerLength(bytes.subarray(0, 8));
  if (bytes.length !== dataOffset) throw malformed('header', `${dataOffset} bytes`, bytes.length);
  if (bytes[8] !== 0x7b) throw malformed('header', '"{" as its first byte', bytes[8]);
  const root = readJson(bytes.subarray(8)) as Record<string, unknown>;
  const names = Object.keys(root).filter((name) => name !== '__metadata__');
  if (names.length > TENSORS_MAX) throw malformed('header', `at most ${TENSORS_MAX} tensors`, names.length);
  const tensors = names.map((name) => readTensor(name, root[name], dataOffset));
  const totalBytes = requireContiguous(tensors, dataOffset);
  return { metadata: readMetadata(root.__metadata__), tensors, dataOffset, totalBytes };
}

/** Refuses a file that is shorter or longer than its header says. */
export function requireExactLength(header: SafetensorsHeader, fileBytes: number): void {
  if (fileBytes === header.totalBytes) return;
  const problem = fileBytes < header.totalBytes ? 'is truncated' : 'has trailing bytes';
  const want = { words: `${header.totalBytes} bytes (the file ${problem})`, value: header.totalBytes };
  throw malformed('body', want, fileBytes);
}

function readJson(bytes: Uint8Array): unknown {
  try {
    return parseStrictJson(bytes, { depth: 3, numbers: 'integers' });
  } catch (error) {
    throw notStrictJson('malformed_safetensors', 'header', error);
  }
}

function readTensor(name: string, value: unknown, dataOffset: number): TensorInfo {
  if (name.length > NAME_BYTES_MAX || !NAME.test(name)) {
    const want = `at most ${NAME_BYTES_MAX} letters, digits, ".", "_" and "-"`;
    throw malformed('tensor name', want, name);
  }
  if (!isObject(value) || Object.keys(value).sort().join() !== 'data_offsets,dtype,shape') {
    const got = isObject(value) ? Object.keys(value) : value;
    throw malformed(name, 'dtype, shape and data_offsets, and nothing else,', got);
  }
  const { dtype, shape, data_offsets: offsets } = value;
  const elementBytes = typeof dtype === 'string' ? DTYPE_BYTES.get(dtype) : undefined;
  if (typeof dtype !== 'string' || elementBytes === undefined) {
    throw expected('unsupported_dtype', name, [...DTYPE_BYTES.keys()].join(', '), dtype);
  }
  if (!isNumbers(shape) || shape.length > DIMENSIONS_MAX || shape.some((size) => size < 1)) {
    throw malformed(name, `at most ${DIMENSIONS_MAX} dimensions of at least 1`, shape);
  }
  const [begin, end] = readOffsets(name, offsets);
  const bytes = shape.reduce((product, size) => product * size, elementBytes);
  // A product above 2^53 is not exact, but it is never equal to a span that is below.
  if (bytes !== end - begin) {
    const want = `data_offsets that span ${bytes} bytes (of shape [${shape}] and dtype ${dtype})`;
    throw malformed(name, want, end - begin);
  }
  return { name, dtype, shape, begin: dataOffset + begin, end: dataOffset + end };
}

function readOffsets(name: string, offsets: unknown): [number, number] {
  if (isNumbers(offsets)) {
    const [begin, end, more] = offsets;
    if (begin !== undefined && end !== undefined && more === undefined && begin <= end) return [begin, end];
  }
  throw malformed(name, 'data_offsets [begin, end] with begin not above end', offsets);
}

function requireContiguous(tensors: TensorInfo[], dataOffset: number): number {
  tensors.sort((a, b) => a.begin - b.begin);
  let end = dataOffset;
  for (const tensor of tensors) {
    if (tensor.begin !== end) {
      const problem = tensor.begin < end ? 'overlaps the tensor before it' : 'leaves a gap before it';
      const want = `a begin at data offset ${end - dataOffset} (it ${problem})`;
      throw malformed(tensor.name, want, tensor.begin - dataOffset);
    }
    end = tensor.end;
  }
  return end;
}

function readMetadata(value: unknown): Record<string, string> {
  if (value === undefined) return {};
  if (isObject(value) && Object.values(value).every((item) => typeof item === 'string')) {
    return value as Record<string, string>;
  }
  throw malformed('__metadata__', 'a map from text to text', value);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isNumbers(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'number');
}

function malformed(field: string, want: Want, got: unknown): LorikeetError {
  return expected('malformed_safetensors', field, want, got);
}
