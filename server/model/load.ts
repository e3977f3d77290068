import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { FileTensor, LayerTensors, ModelConfig, ModelDescriptor } from '../../native/types.ts';
import type { Geometry } from '../contract/adapter-api.ts';
import { type BaseConfig, readConfig, readEosTokenIds } from './config.ts';
import { ModelError, malformed, unsupported } from './errors.ts';
import type { Keys } from './keys.ts';
import { readSamplingDefaults, type SamplingDefaults } from './sampling.ts';
import { baseDigest, openShards, readJsonFile } from './shards.ts';

const GENERATION_CONFIG = 'generation_config.json';

export interface LoadOptions {
  /** Caps the context below what the model was trained for. */
  contextTokens?: number;
  /** Where sampling defaults come from: `auto` is the model's own generation_config.json, `vllm` nowhere, else a folder. */
  generationConfig?: string;
}

export interface LoadedModel {
  descriptor: ModelDescriptor;
  /** See `baseDigest`. */
  digest: string;
  geometry: Geometry;
  eosTokenIds: number[];
  samplingDefaults: SamplingDefaults;
  contextTokens: number;
  /** The class that transformers would load: `LlamaForCausalLM`. */
  architecture: string;
}

/** Reads a Hugging Face model directory and checks every tensor against the config; no weight is loaded. */
export async function loadModel(dir: string, options: LoadOptions = {}): Promise<LoadedModel> {
  const found = await stat(dir).catch(() => null);
  if (!found?.isDirectory()) {
    throw new ModelError('missing_file', dir, { expected: 'a model directory', actual: 'none' });
  }
  const keys = await readJsonFile(dir, 'config.json');
  if (keys === null) {
    throw new ModelError('missing_file', join(dir, 'config.json'), { expected: 'a file', actual: 'none' });
  }
  const config = readConfig(keys, options.contextTokens);
  const generation = await readGenerationConfig(dir, options.generationConfig ?? 'auto');
  const eosTokenIds = readEosTokenIds(keys, generation.keys);
  const tooLarge = eosTokenIds.find((id) => id >= config.model.vocabSize);
  if (tooLarge !== undefined) throw malformed('eos_token_id', `below ${config.model.vocabSize}`, tooLarge);
  const shards = await openShards(dir);
  const descriptor = describe(config, shards.files, new TensorPicker(shards.tensors));
  return {
    descriptor,
    digest: await baseDigest(dir, shards),
    geometry: geometryOf(config.model),
    eosTokenIds,
    samplingDefaults: generation.samplingDefaults,
    contextTokens: config.model.contextTokens,
    architecture: config.architecture,
  };
}

/**
 * The tokenizer's end token ends a generation too, as in vLLM: chat fine-tunes often name theirs in tokenizer_config.json
 * alone. One that the model has no row for cannot come.
 */
export function withTokenizerEnd(model: LoadedModel, eosTokenId: number | null): LoadedModel {
  const { vocabSize } = model.descriptor.config;
  if (eosTokenId === null || eosTokenId >= vocabSize || model.eosTokenIds.includes(eosTokenId)) return model;
  return { ...model, eosTokenIds: [...model.eosTokenIds, eosTokenId] };
}

/** `vllm` turns the sampling defaults off; the end tokens of the model's own file hold all the same, as in vLLM. */
async function readGenerationConfig(
  dir: string,
  from: string,
): Promise<{ keys: Keys | null; samplingDefaults: SamplingDefaults }> {
  const isFolder = from !== 'auto' && from !== 'vllm';
  const keys = await readJsonFile(isFolder ? from : dir, GENERATION_CONFIG);
  if (isFolder && keys === null) {
    throw new ModelError('missing_file', join(from, GENERATION_CONFIG), {
      expected: 'a file',
      actual: 'none',
    });
  }
  return { keys, samplingDefaults: from === 'vllm' ? {} : readSamplingDefaults(keys) };
}

/** What the widths of a model's modules come from. */
export type Widths = Pick<
  ModelConfig,
  'layers' | 'hiddenSize' | 'heads' | 'kvHeads' | 'headDim' | 'ffnSize' | 'vocabSize'
>;

/** Input and output width of every adaptable module. */
export function geometryOf(model: Widths): Geometry {
  const { hiddenSize: hidden, ffnSize: ffn, vocabSize: vocab, layers } = model;
  const q = model.heads * model.headDim;
  const kv = model.kvHeads * model.headDim;
  return {
    layers,
    modules: {
      q_proj: { in: hidden, out: q },
      k_proj: { in: hidden, out: kv },
      v_proj: { in: hidden, out: kv },
      o_proj: { in: q, out: hidden },
      gate_proj: { in: hidden, out: ffn },
      up_proj: { in: hidden, out: ffn },
      down_proj: { in: ffn, out: hidden },
      embed_tokens: { in: vocab, out: hidden },
      lm_head: { in: hidden, out: vocab },
    },
  };
}

function describe(config: BaseConfig, files: string[], tensors: TensorPicker): ModelDescriptor {
  const { hiddenSize, vocabSize, layers } = config.model;
  const embedTokens = tensors.take('model.embed_tokens.weight', [vocabSize, hiddenSize]);
  if (config.tiedEmbeddings) tensors.ignore('lm_head.weight');
  const descriptor: ModelDescriptor = {
    config: config.model,
    files,
    embedTokens,
    norm: tensors.take('model.norm.weight', [hiddenSize]),
    lmHead: config.tiedEmbeddings ? embedTokens : tensors.take('lm_head.weight', [vocabSize, hiddenSize]),
    layers: Array.from({ length: layers }, (_, layer) => describeLayer(config, layer, tensors)),
  };
  tensors.requireAllTaken();
  return descriptor;
}

function describeLayer(config: BaseConfig, layer: number, tensors: TensorPicker): LayerTensors {
  const { hiddenSize: hidden, headDim } = config.model;
  const { modules } = geometryOf(config.model);
  const prefix = `model.layers.${layer}`;
  const vector = (name: string, size: number) => tensors.take(`${prefix}.${name}`, [size]);
  const projection = (parent: string, name: keyof typeof modules) => {
    const { in: columns = 0, out: rows = 0 } = modules[name] ?? {};
    return tensors.take(`${prefix}.${parent}.${name}.weight`, [rows, columns]);
  };
  const bias = (name: string) =>
    config.qkvBias ? vector(`self_attn.${name}.bias`, modules[name]?.out ?? 0) : null;
  const headNorm = (name: string) => (config.qkNorm ? vector(`self_attn.${name}.weight`, headDim) : null);
  // Old exports store the frequencies; we compute them from the config.
  tensors.ignore(`${prefix}.self_attn.rotary_emb.inv_freq`);
  return {
    inputNorm: vector('input_layernorm.weight', hidden),
    postAttentionNorm: vector('post_attention_layernorm.weight', hidden),
    qProj: projection('self_attn', 'q_proj'),
    kProj: projection('self_attn', 'k_proj'),
    vProj: projection('self_attn', 'v_proj'),
    oProj: projection('self_attn', 'o_proj'),
    gateProj: projection('mlp', 'gate_proj'),
    upProj: projection('mlp', 'up_proj'),
    downProj: projection('mlp', 'down_proj'),
    qBias: bias('q_proj'),
    kBias: bias('k_proj'),
    vBias: bias('v_proj'),
    qNorm: headNorm('q_norm'),
    kNorm: headNorm('k_norm'),
  };
}

/** Hands out tensors by name and shape, and knows what nobody asked for: a tensor left over is a model we get wrong. */
class TensorPicker {
  readonly #tensors: Map<string, FileTensor>;
  readonly #left: Set<string>;

  constructor(tensors: Map<string, FileTensor>) {
    this.#tensors = tensors;
    this.#left = new Set(tensors.keys());
  }

  take(name: string, shape: number[]): FileTensor {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw malformed(name, `a tensor of shape [${shape}]`, 'none');
    if (tensor.shape.join() !== shape.join()) throw malformed(name, shape, tensor.shape);
    this.#left.delete(name);
    return tensor;
  }

  ignore(name: string): void {
    this.#left.delete(name);
  }

  requireAllTaken(): void {
    const [name] = this.#left;
    if (name !== undefined)
      throw unsupported(name, 'only tensors that the architecture has', 'a tensor without use');
  }
}
