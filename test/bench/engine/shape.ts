import type { LoraModuleName } from '../../../native/types.ts';

/** A Llama's sizes. */
export interface Shape {
  name: string;
  layers: number;
  hidden: number;
  ffn: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  vocab: number;
  contextTokens: number;
  ropeTheta: number;
}

export const SHAPE_1B: Shape = {
  name: '1b',
  layers: 16,
  hidden: 2048,
  ffn: 8192,
  heads: 32,
  kvHeads: 8,
  headDim: 64,
  vocab: 32_000,
  contextTokens: 4096,
  ropeTheta: 10_000,
};

/** Llama 3.1 8B. */
export const SHAPE_8B: Shape = {
  name: '8b',
  layers: 32,
  hidden: 4096,
  ffn: 14_336,
  heads: 32,
  kvHeads: 8,
  headDim: 128,
  vocab: 128_256,
  contextTokens: 4096,
  ropeTheta: 500_000,
};

/** The modules of a layer: the benchmark's adapters leave the embedding and the head alone. */
export type Projection = Exclude<LoraModuleName, 'embed_tokens' | 'lm_head'>;

export const RMS_EPS = 1e-5;
export const ADAPTER_RANK = 16;
export const ADAPTER_ALPHA = 32;

/** Rows and columns of every projection of a layer. */
export function projections(shape: Shape): Record<Projection, [out: number, input: number]> {
  const { hidden, ffn } = shape;
  const q = shape.heads * shape.headDim;
  const kv = shape.kvHeads * shape.headDim;
  return {
    q_proj: [q, hidden],
    k_proj: [kv, hidden],
    v_proj: [kv, hidden],
    o_proj: [hidden, q],
    gate_proj: [ffn, hidden],
    up_proj: [ffn, hidden],
    down_proj: [hidden, ffn],
  };
}

/** `self_attn.q_proj`, `mlp.up_proj`: the path of a projection inside its layer. */
export function projectionPath(module: string): string {
  return `${/gate|up|down/.test(module) ? 'mlp' : 'self_attn'}.${module}`;
}

/** Weights of all layers' matrices, of the head, and of one adapter. */
export function parameterCounts(shape: Shape): { layers: number; head: number; adapter: number } {
  const sizes = Object.values(projections(shape));
  const perLayer = sizes.reduce((sum, [out, input]) => sum + out * input, 0);
  const perLayerAdapter = sizes.reduce((sum, [out, input]) => sum + ADAPTER_RANK * (out + input), 0);
  return {
    layers: shape.layers * perLayer,
    head: shape.vocab * shape.hidden,
    adapter: shape.layers * perLayerAdapter,
  };
}
