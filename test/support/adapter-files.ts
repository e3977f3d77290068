/** Writes safetensors files and PEFT configs for tests: right ones, and wrong ones on request. */
import { createHash } from 'node:crypto';
import { revisionDigest } from '../../server/contract/digest.ts';

export interface Tensor {
  dtype: string;
  shape: number[];
  data: Buffer;
}
export type Tensors = Map<string, Tensor>;

export interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: number[];
}
export type HeaderEntries = Record<string, HeaderEntry>;

export interface AdapterFiles {
  tensors: Buffer;
  config: Buffer;
}

/** PEFT's config of an adapter of rank 8 on q_proj and v_proj. */
export const CONFIG: Readonly<Record<string, unknown>> = {
  peft_type: 'LORA',
  task_type: 'CAUSAL_LM',
  base_model_name_or_path: 'fixture',
  r: 8,
  lora_alpha: 16,
  lora_dropout: 0.0,
  bias: 'none',
  fan_in_fan_out: false,
  use_rslora: false,
  use_dora: false,
  modules_to_save: null,
  target_modules: ['q_proj', 'v_proj'],
  rank_pattern: {},
  alpha_pattern: {},
  inference_mode: true,
};

export const EMBEDDING = 'base_model.model.model.embed_tokens';
export const HEAD = 'base_model.model.lm_head';

/** As PEFT saves it; a layer means nothing to embed_tokens and lm_head. */
export function factorName(layer: number, module: string, factor: 'A' | 'B'): string {
  if (module === 'embed_tokens') return `${EMBEDDING}.lora_embedding_${factor}`;
  if (module === 'lm_head') return `${HEAD}.lora_${factor}.weight`;
  const parent = /gate|up|down/.test(module) ? 'mlp' : 'self_attn';
  return `base_model.model.model.layers.${layer}.${parent}.${module}.lora_${factor}.weight`;
}

export function f32(shape: number[], value: (index: number) => number): Tensor {
  const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, index) => value(index));
  return { dtype: 'F32', shape, data: Buffer.from(values.buffer) };
}

/** The tensors of an adapter on q_proj and v_proj of the parrot model that fits CONFIG; other seeds, other bytes. */
export function goodTensors(seed = 7): Tensors {
  const random = mulberry32(seed);
  const tensors: Tensors = new Map();
  for (let layer = 0; layer < 4; layer++) {
    for (const [module, out] of [
      ['q_proj', 256],
      ['v_proj', 64],
    ] as const) {
      tensors.set(
        factorName(layer, module, 'A'),
        f32([8, 256], () => (random() - 0.5) / 10),
      );
      tensors.set(
        factorName(layer, module, 'B'),
        f32([out, 8], () => (random() - 0.5) / 10),
      );
    }
  }
  return tensors;
}

export function goodAdapter(seed = 7, config: Record<string, unknown> = {}): AdapterFiles {
  return {
    tensors: packSafetensors(goodTensors(seed)),
    config: Buffer.from(JSON.stringify({ ...CONFIG, ...config })),
  };
}

/** The revision that the files are. */
export function digestOf({ tensors, config }: AdapterFiles): string {
  return revisionDigest(JSON.parse(config.toString()), sha256(tensors));
}

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** `header` turns the right entries into the header's bytes; by default it is their JSON. */
export function packSafetensors(
  tensors: Tensors,
  header: (entries: HeaderEntries) => string | Buffer = JSON.stringify,
): Buffer {
  const entries: HeaderEntries = {};
  let offset = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    entries[name] = { dtype, shape, data_offsets: [offset, offset + data.length] };
    offset += data.length;
  }
  const json = Buffer.from(header(entries));
  const padding = Buffer.alloc((8 - (json.length % 8)) % 8, ' ');
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length + padding.length));
  return Buffer.concat([length, json, padding, ...[...tensors.values()].map(({ data }) => data)]);
}

/** The same file with text added to `__metadata__`, as a trainer sends its config without a header. */
export function withMetadata(file: Buffer, metadata: Record<string, string>): Buffer {
  const end = 8 + Number(file.readBigUInt64LE());
  const entries = JSON.parse(file.toString('utf8', 8, end)) as Record<string, unknown>;
  const json = Buffer.from(JSON.stringify({ __metadata__: metadata, ...entries }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, file.subarray(end)]);
}

export function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Rank 64 on every q_proj of the parrot. */
export function wideTensors(): Tensors {
  const tensors: Tensors = new Map();
  for (let layer = 0; layer < 4; layer += 1) {
    tensors.set(
      factorName(layer, 'q_proj', 'A'),
      f32([64, 256], () => 0.1),
    );
    tensors.set(
      factorName(layer, 'q_proj', 'B'),
      f32([256, 64], () => 0.1),
    );
  }
  return tensors;
}
