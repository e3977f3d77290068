import type { Geometry } from '../adapter-api.ts';
import { expected } from '../errors.ts';
import { brief, quoted } from '../strict-json.ts';
import type { AdapterConfig } from './adapter-config.ts';
import type { KeyPattern } from './patterns.ts';
import type { SafetensorsHeader, TensorInfo } from './safetensors.ts';
import { isInLayers, modulePath, partName, readTensorName, type TensorName } from './tensor-names.ts';

export type FactorDtype = 'F32' | 'F16' | 'BF16';
export const FACTOR_DTYPES: readonly FactorDtype[] = ['F32', 'F16', 'BF16'];

/** The base model's adaptable modules, by their PEFT names. */
export type ModuleName =
  | 'q_proj'
  | 'k_proj'
  | 'v_proj'
  | 'o_proj'
  | 'gate_proj'
  | 'up_proj'
  | 'down_proj'
  | 'embed_tokens'
  | 'lm_head';

export interface BoundFactor {
  /** In the safetensors file. */
  offset: number;
  dtype: FactorDtype;
}

/** One adapted module: `a` is [rank, in], `b` [out, rank], row-major. */
export interface BoundModule {
  /** 0 for embed_tokens, whose `in` is the vocabulary, and lm_head, whose `out` is. */
  layer: number;
  module: ModuleName;
  rank: number;
  scale: number;
  a: BoundFactor;
  b: BoundFactor;
}

export interface BoundAdapter {
  /** By layer, then in the order of the geometry. */
  modules: BoundModule[];
  /** Largest rank. */
  rank: number;
  /** Distinct, ascending. */
  ranks: number[];
  /** Module names that have tensors. */
  targetModules: string[];
  /** Layers with tensors; embed_tokens and lm_head are in none. */
  layers: number[];
  dtypes: string[];
  /** What is odd but served. */
  warnings: string[];
}

export interface BindLimits {
  geometry: Geometry;
  maxRank: number;
}

interface Pair {
  name: TensorName;
  a?: TensorInfo;
  b?: TensorInfo;
  copy?: TensorInfo;
}

interface Width {
  in: number;
  out: number;
}

/**
 * Binds an adapter to a base model without reading its data: every tensor is a factor of a module that exists and
 * that the config targets, or a copy of the base's weight beside them; every targeted module has both factors, and
 * shapes, ranks and dtypes agree. Each refusal names the first tensor or key that is wrong.
 */
export function bindAdapter(
  config: AdapterConfig,
  header: SafetensorsHeader,
  limits: BindLimits,
): BoundAdapter {
  if (header.tensors.length === 0) {
    throw expected('no_modules', 'tensors', 'at least one lora_A and lora_B', undefined);
  }
  const pairs = pairTensors(header.tensors, limits.geometry);
  const modules: BoundModule[] = [];
  for (let layer = 0; layer < limits.geometry.layers; layer++) {
    for (const [module, width] of Object.entries(limits.geometry.modules)) {
      if (layer > 0 && !isInLayers(module)) continue;
      const path = modulePath(layer, module);
      const pair = pairs.get(path);
      requireTargeted(config, path, module, pair);
      if (pair === undefined) continue;
      requireCopy(pair, width);
      modules.push(bindModule(config, pair, { ...width, maxRank: limits.maxRank }));
    }
  }
  return summary(modules, [...oddities(config, limits.geometry, modules), ...unread(pairs)]);
}

function pairTensors(tensors: TensorInfo[], geometry: Geometry): Map<string, Pair> {
  const pairs = new Map<string, Pair>();
  for (const tensor of tensors) {
    const name = readTensorName(tensor.name);
    requireKnown(tensor, name, geometry);
    const pair = pairs.get(name.path) ?? { name };
    pairs.set(name.path, pair);
    const { part, module, path } = name;
    if (pair[part] !== undefined) {
      const want = `the only ${partName(module, part)} of ${path}`;
      throw expected('unexpected_tensor', tensor.name, want, `one more beside ${pair[part].name}`);
    }
    pair[part] = tensor;
  }
  return pairs;
}

function requireKnown(tensor: TensorInfo, { layer, module }: TensorName, geometry: Geometry): void {
  if (!Object.hasOwn(geometry.modules, module)) {
    const known = Object.keys(geometry.modules).join(', ');
    throw expected('unknown_module', tensor.name, `a module of ${known}`, module);
  }
  if (layer >= geometry.layers) {
    throw expected('unknown_module', tensor.name, `a layer below ${geometry.layers}`, layer);
  }
  if (!FACTOR_DTYPES.includes(tensor.dtype as FactorDtype)) {
    throw expected('unsupported_dtype', tensor.name, FACTOR_DTYPES.join(', '), tensor.dtype);
  }
}

function requireTargeted(config: AdapterConfig, path: string, module: string, pair?: Pair): void {
  const targeted = config.targets(path);
  const tensor = pair?.a ?? pair?.b;
  if (targeted && tensor === undefined) {
    const want = `${partName(module, 'a')} and ${partName(module, 'b')} (the config targets it)`;
    throw expected('missing_tensor', path, want, undefined);
  }
  if (!targeted && tensor !== undefined) {
    const targets = JSON.stringify(brief(config.targetModules));
    const want = `a target of target_modules ${targets}, after exclude_modules and layers_to_transform,`;
    throw expected('unexpected_tensor', tensor.name, want, path);
  }
}

/** The base's weight may stand only beside the factors that it came with, and only in the base's own shape. */
function requireCopy({ name, a, b, copy }: Pair, width: Width): void {
  if (copy === undefined) return;
  if (a === undefined && b === undefined) {
    const want = `LoRA of ${name.path} beside it (base_layer, weights of the base model, is not applied)`;
    throw expected('unsupported_adapter_feature', copy.name, want, undefined);
  }
  const sizes = name.module === 'lm_head' ? [width.out, width.in] : [width.in, width.out];
  const resized = copy.shape.length === 2 && copy.shape[1] === sizes[1];
  requireShape(
    copy.name,
    copy,
    sizes,
    resized ? ' (the vocabulary was resized, that of this base was not)' : '',
  );
}

function bindModule(config: AdapterConfig, pair: Pair, limits: Width & { maxRank: number }): BoundModule {
  const { path, layer, module } = pair.name;
  const fieldA = `${path}.${partName(module, 'a')}`;
  const fieldB = `${path}.${partName(module, 'b')}`;
  const a = requireFactor(fieldA, pair.a);
  const b = requireFactor(fieldB, pair.b);
  const rank = a.shape[0] as number;
  const configRank = firstMatch(config.rankPattern, path) ?? config.r;
  requireShape(fieldA, a, [a.shape[1] === limits.in ? rank : configRank, limits.in]);
  requireShape(fieldB, b, [limits.out, b.shape[0] === limits.out ? (b.shape[1] as number) : rank]);
  if (b.shape[1] !== rank) {
    throw expected('rank_mismatch', fieldB, `rank ${rank}, as ${partName(module, 'a')} has,`, b.shape[1]);
  }
  if (rank !== configRank)
    throw expected('rank_mismatch', fieldA, `rank ${configRank}, as the config says,`, rank);
  if (rank > limits.maxRank) {
    const want = { words: `a rank of at most ${limits.maxRank}`, value: limits.maxRank };
    throw expected('rank_too_large', path, want, rank);
  }
  const alpha = firstMatch(config.alphaPattern, path) ?? config.loraAlpha;
  return {
    layer,
    module: module as ModuleName,
    rank,
    scale: alpha / (config.useRslora ? Math.sqrt(rank) : rank),
    a: { offset: a.begin, dtype: a.dtype as FactorDtype },
    b: { offset: b.begin, dtype: b.dtype as FactorDtype },
  };
}

function requireFactor(field: string, tensor: TensorInfo | undefined): TensorInfo {
  if (tensor === undefined) throw expected('missing_tensor', field, 'lora_A and lora_B in pairs', undefined);
  if (tensor.shape.length !== 2) throw expected('shape_mismatch', field, '2 dimensions', tensor.shape);
  return tensor;
}

function requireShape(field: string, { shape }: TensorInfo, sizes: number[], note = ''): void {
  if (shape.length === sizes.length && shape.every((size, i) => size === sizes[i])) return;
  const want = { words: `shape [${sizes.join(', ')}]${note}`, value: sizes };
  throw expected('shape_mismatch', field, want, shape);
}

function firstMatch(patterns: KeyPattern[], path: string): number | undefined {
  return patterns.find((pattern) => pattern.matches(path))?.value;
}

function oddities(config: AdapterConfig, geometry: Geometry, modules: BoundModule[]): string[] {
  const warnings: string[] = [];
  if (Array.isArray(config.targetModules)) {
    const paths = modules.map(({ layer, module }) => modulePath(layer, module));
    const idle = config.targetModules.filter(
      (name) => !paths.some((path) => path === name || path.endsWith(`.${name}`)),
    );
    for (const name of idle.slice(0, 8)) {
      warnings.push(`target_modules names ${quoted(name, 80)}, which adapts nothing in this model`);
    }
  }
  const beyond = config.layersToTransform?.find((layer) => layer >= geometry.layers);
  if (beyond !== undefined)
    warnings.push(`layers_to_transform names layer ${beyond}, the model has ${geometry.layers}`);
  if (modules.some(({ scale }) => scale <= 0))
    warnings.push('lora_alpha or alpha_pattern is zero or negative');
  return warnings;
}

function unread(pairs: Map<string, Pair>): string[] {
  return [...pairs.values()]
    .filter(({ copy }) => copy !== undefined)
    .map(({ name }) => `${name.path}.base_layer.weight is taken for a copy of the base's and is not read`);
}

function summary(modules: BoundModule[], warnings: string[]): BoundAdapter {
  const ranks = distinct(modules.map(({ rank }) => rank)).sort((a, b) => a - b);
  return {
    modules,
    rank: ranks.at(-1) ?? 0,
    ranks,
    targetModules: distinct(modules.map(({ module }) => module)),
    layers: distinct(modules.filter(({ module }) => isInLayers(module)).map(({ layer }) => layer)),
    dtypes: distinct(modules.flatMap(({ a, b }) => [a.dtype, b.dtype])).sort(),
    warnings,
  };
}

function distinct<T>(items: T[]): T[] {
  return [...new Set(items)];
}
