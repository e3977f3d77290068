import { createHash } from 'node:crypto';
import type { PodState } from '../contract/adapter-api.ts';
import { revisionDigest } from '../contract/digest.ts';
import { PARENTS } from '../contract/format/tensor-names.ts';

export interface Tensor {
  dtype: string;
  shape: number[];
  data: Buffer;
}
export type Tensors = Map<string, Tensor>;

interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: number[];
}
export type HeaderEntries = Record<string, HeaderEntry>;

export interface Module {
  name: string;
  in: number;
  out: number;
}

/** An adapter as it is sent. */
export interface Upload {
  body: Buffer;
  config: Buffer;
  digest: string;
}

export interface Changes {
  rank?: number;
  config?: Record<string, unknown>;
  /** Of adapter_config.json, as it is. */
  configText?: string;
  tensors?: (tensors: Tensors) => void;
  header?: (entries: HeaderEntries) => string;
  file?: (file: Buffer) => Buffer;
}

const MODULES_MAX = 2;
const RANK = 4;

/** As PEFT names it. */
export function factorName(layer: number, module: string, factor: 'A' | 'B'): string {
  return `base_model.model.model.layers.${layer}.${PARENTS[module] ?? 'self_attn'}.${module}.lora_${factor}.weight`;
}

/**
 * Makes adapters that fit the base model that a pod tells of, small ones: of its two narrowest modules in its first
 * layer. Each has a content that no other has, and none of another run.
 */
export class AdapterMaker {
  readonly modules: Module[];
  readonly rank: number;
  readonly dtype: string;
  readonly #salt: string;
  #made = 0;

  constructor({ baseModel, limits }: Pick<PodState, 'baseModel' | 'limits'>, salt: string) {
    const isAdaptable = (name: string) => limits.modules.length === 0 || limits.modules.includes(name);
    this.modules = Object.entries(baseModel.geometry.modules)
      .filter(([name]) => PARENTS[name] !== undefined && isAdaptable(name))
      .map(([name, width]) => ({ name, ...width }))
      .sort((a, b) => a.in + a.out - (b.in + b.out))
      .slice(0, MODULES_MAX);
    this.rank = Math.min(RANK, limits.maxRank);
    this.dtype = ['F32', 'BF16', 'F16'].find((dtype) => limits.dtypes.includes(dtype)) ?? 'F32';
    this.#salt = salt;
  }

  /** The narrowest one. */
  get module(): Module {
    return this.modules[0] as Module;
  }

  config(changes: Record<string, unknown> = {}): Record<string, unknown> {
    return {
      peft_type: 'LORA',
      task_type: 'CAUSAL_LM',
      base_model_name_or_path: null,
      r: this.rank,
      lora_alpha: 2 * this.rank,
      lora_dropout: 0,
      bias: 'none',
      target_modules: this.modules.map(({ name }) => name),
      layers_to_transform: [0],
      rank_pattern: {},
      alpha_pattern: {},
      ...changes,
    };
  }

  /** A right one, or one with these faults. */
  make(changes: Changes = {}): Upload {
    const rank = changes.rank ?? this.rank;
    const tensors: Tensors = new Map();
    for (const { name, ...width } of this.modules) {
      tensors.set(factorName(0, name, 'A'), this.noise([rank, width.in]));
      tensors.set(factorName(0, name, 'B'), this.noise([width.out, rank]));
    }
    changes.tensors?.(tensors);
    const packed = packSafetensors(tensors, changes.header);
    const config = this.config({ r: rank, ...changes.config });
    return uploadOf(changes.file?.(packed) ?? packed, changes.configText ?? JSON.stringify(config));
  }

  /** Numbers of about ±0.03, other ones each time. */
  noise(shape: number[], dtype = this.dtype): Tensor {
    this.#made += 1;
    const count = shape.reduce((product, size) => product * size, 1);
    const block = createHash('sha512').update(`${this.#salt} ${this.#made}`).digest();
    const byte = (i: number) => (block[i % 64] ?? 0) ^ (Math.imul(i, 2_654_435_761) >>> 24);
    const bytes = dtype === 'F32' ? 4 : 2;
    const data = Buffer.alloc(count * bytes);
    for (let i = 0; i < count; i++) {
      // Sign and mantissa at random; the exponent is -5 (F16: bias 15; else 127).
      const sign = (byte(i) & 0x80) << 8;
      const top =
        dtype === 'F16' ? sign | (10 << 10) | byte(i + 1) : sign | (122 << 7) | (byte(i + 1) & 0x7f);
      data.writeUInt16LE(top, i * bytes + bytes - 2);
    }
    return { dtype, shape, data };
  }
}

export function uploadOf(body: Buffer, configText: string): Upload {
  const config = Buffer.from(configText);
  return { body, config, digest: digestOf(body, configText) };
}

/** The headers that a body goes with. */
export function headersOf({ config }: Pick<Upload, 'config'>): Record<string, string> {
  return {
    'content-type': 'application/octet-stream',
    'x-lora-config': config.toString('base64url'),
  };
}

export function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** Empty where the config is not even JSON, and there is no such revision. */
function digestOf(body: Buffer, configText: string): string {
  try {
    return revisionDigest(JSON.parse(configText), sha256(body).toString('hex'));
  } catch {
    return '';
  }
}

function packSafetensors(
  tensors: Tensors,
  header: (entries: HeaderEntries) => string = JSON.stringify,
): Buffer {
  const entries: HeaderEntries = {};
  let offset = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    entries[name] = { dtype, shape, data_offsets: [offset, offset + data.length] };
    offset += data.length;
  }
  return withHeader(header(entries), Buffer.concat([...tensors.values()].map(({ data }) => data)));
}

function withHeader(json: string, data: Buffer): Buffer {
  const text = Buffer.from(json);
  const padding = Buffer.alloc((8 - (text.length % 8)) % 8, ' ');
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length + padding.length));
  return Buffer.concat([length, text, padding, data]);
}
