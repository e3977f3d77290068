import { type FileHandle, open } from 'node:fs/promises';
import type { FileTensor, ModelDescriptor } from '../../../native/types.ts';
import { makeOnce, say } from './cache.ts';
import { GGML_BF16, GGML_F32, type GgufTensor, type GgufValue, ggufHead, paddingOf } from './gguf-head.ts';
import { modelFolder } from './model.ts';
import { RMS_EPS, type Shape } from './shape.ts';

const MOSTLY_BF16 = 32;
const CHUNK_BYTES = 16 << 20;

interface Source {
  name: string;
  from: FileTensor;
  /** Heads whose rows change places; see `pairRows`. */
  heads?: number;
}

/** The model as llama.cpp reads it, with the same bf16 numbers; norms are widened, as its own converter does. */
export function ensureGguf(shape: Shape, model: ModelDescriptor): Promise<string> {
  return makeOnce(`${modelFolder(shape)}.gguf`, async (partial) => {
    say('converting the model to GGUF');
    const sources = sourcesOf(model);
    const input = await open(model.files[0] as string);
    const output = await open(partial, 'w');
    try {
      await output.writeFile(ggufHead(metadataOf(shape), sources.map(describe)));
      for (const source of sources) await copyTensor(source, input, output);
    } finally {
      await input.close();
      await output.close();
    }
  });
}

function sourcesOf(model: ModelDescriptor): Source[] {
  const { heads, kvHeads } = model.config;
  const layers = model.layers.flatMap((layer, index): Source[] => {
    const named = (name: string, from: FileTensor) => ({ name: `blk.${index}.${name}.weight`, from });
    return [
      named('attn_norm', layer.inputNorm),
      { ...named('attn_q', layer.qProj), heads },
      { ...named('attn_k', layer.kProj), heads: kvHeads },
      named('attn_v', layer.vProj),
      named('attn_output', layer.oProj),
      named('ffn_norm', layer.postAttentionNorm),
      named('ffn_gate', layer.gateProj),
      named('ffn_up', layer.upProj),
      named('ffn_down', layer.downProj),
    ];
  });
  return [
    { name: 'token_embd.weight', from: model.embedTokens },
    ...layers,
    { name: 'output_norm.weight', from: model.norm },
    { name: 'output.weight', from: model.lmHead },
  ];
}

function describe({ name, from }: Source): GgufTensor {
  const isNorm = from.shape.length === 1;
  return {
    name,
    shape: from.shape,
    ggmlType: isNorm ? GGML_F32 : GGML_BF16,
    bytes: isNorm ? 2 * from.bytes : from.bytes,
  };
}

async function copyTensor({ from, heads }: Source, input: FileHandle, output: FileHandle): Promise<void> {
  const whole = from.shape.length === 1 || heads !== undefined;
  const step = whole ? from.bytes : CHUNK_BYTES;
  let written = 0;
  for (let done = 0; done < from.bytes; done += step) {
    const chunk = Buffer.alloc(Math.min(step, from.bytes - done));
    await input.read(chunk, 0, chunk.length, from.offset + done);
    const changed = from.shape.length === 1 ? widen(chunk) : heads ? pairRows(chunk, from, heads) : chunk;
    await output.writeFile(changed);
    written += changed.length;
  }
  await output.writeFile(Buffer.alloc(paddingOf(written)));
}

function widen(bf16: Buffer): Buffer {
  const wide = Buffer.alloc(2 * bf16.length);
  for (let i = 0; i < bf16.length; i += 2) bf16.copy(wide, 2 * i + 2, i, i + 2);
  return wide;
}

/** Hugging Face rotates value i of a head with value i + headDim / 2, llama.cpp value 2 i with value 2 i + 1. */
function pairRows(matrix: Buffer, { shape }: FileTensor, heads: number): Buffer {
  const [rows = 0] = shape;
  const rowBytes = matrix.length / rows;
  const half = rows / heads / 2;
  const paired = Buffer.alloc(matrix.length);
  for (let row = 0; row < rows; row++) {
    const inHead = row % (2 * half);
    const target = row - inHead + 2 * (inHead % half) + Math.floor(inHead / half);
    matrix.copy(paired, target * rowBytes, row * rowBytes, (row + 1) * rowBytes);
  }
  return paired;
}

function metadataOf(shape: Shape): Record<string, GgufValue> {
  const u32 = (value: number): GgufValue => ({ type: 'u32', value });
  const f32 = (value: number): GgufValue => ({ type: 'f32', value });
  const string = (value: string): GgufValue => ({ type: 'string', value });
  return {
    'general.architecture': string('llama'),
    'general.name': string(`lorikeet bench ${shape.name}`),
    'general.file_type': u32(MOSTLY_BF16),
    'llama.block_count': u32(shape.layers),
    'llama.context_length': u32(shape.contextTokens),
    'llama.embedding_length': u32(shape.hidden),
    'llama.feed_forward_length': u32(shape.ffn),
    'llama.attention.head_count': u32(shape.heads),
    'llama.attention.head_count_kv': u32(shape.kvHeads),
    'llama.attention.key_length': u32(shape.headDim),
    'llama.attention.value_length': u32(shape.headDim),
    'llama.attention.layer_norm_rms_epsilon': f32(RMS_EPS),
    'llama.rope.dimension_count': u32(shape.headDim),
    'llama.rope.freq_base': f32(shape.ropeTheta),
    'llama.vocab_size': u32(shape.vocab),
    ...dummyTokenizer(shape.vocab),
  };
}

/** Token ids are passed as they are, so the words do not matter; llama.cpp wants the special and byte tokens. */
function dummyTokenizer(vocab: number): Record<string, GgufValue> {
  const bytes = Array.from({ length: 256 }, (_, byte) => {
    return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
  });
  const special = ['<unk>', '<s>', '</s>', ...bytes];
  const [NORMAL, UNKNOWN, CONTROL, BYTE] = [1, 2, 3, 6];
  const typeOf = (id: number) =>
    id === 0 ? UNKNOWN : id < 3 ? CONTROL : id < special.length ? BYTE : NORMAL;
  return {
    'tokenizer.ggml.model': { type: 'string', value: 'llama' },
    'tokenizer.ggml.tokens': {
      type: 'strings',
      value: Array.from({ length: vocab }, (_, id) => special[id] ?? `t${id}`),
    },
    'tokenizer.ggml.scores': { type: 'f32s', value: Float32Array.from({ length: vocab }, (_, id) => -id) },
    'tokenizer.ggml.token_type': {
      type: 'i32s',
      value: Int32Array.from({ length: vocab }, (_, id) => typeOf(id)),
    },
    'tokenizer.ggml.bos_token_id': { type: 'u32', value: 1 },
    'tokenizer.ggml.eos_token_id': { type: 'u32', value: 2 },
    'tokenizer.ggml.unknown_token_id': { type: 'u32', value: 0 },
  };
}
