import type { ModelConfig } from '../../native/types.ts';
import { malformed, unsupported } from './errors.ts';
import { type Keys, optionalKeys, positiveInteger, positiveNumber, readSwitch } from './keys.ts';
import { readRope } from './rope.ts';

/** A config.json as the engine takes it, and which optional tensors its layers have. */
export interface BaseConfig {
  architecture: string;
  model: ModelConfig;
  tiedEmbeddings: boolean;
  qkvBias: boolean;
  qkNorm: boolean;
}

interface Family {
  qkvBias: boolean;
  qkNorm: boolean;
  /** Whether the config asks for sliding windows on some layer. */
  slides(keys: Keys): boolean;
}

const FAMILIES: Record<string, Family> = {
  LlamaForCausalLM: { qkvBias: false, qkNorm: false, slides: () => false },
  MistralForCausalLM: {
    qkvBias: false,
    qkNorm: false,
    slides: (keys) => typeof keys.sliding_window === 'number',
  },
  Qwen2ForCausalLM: { qkvBias: true, qkNorm: false, slides: (keys) => keys.use_sliding_window === true },
  Qwen3ForCausalLM: { qkvBias: false, qkNorm: true, slides: (keys) => keys.use_sliding_window === true },
};

/** Reads config.json in the layout of transformers 4 or 5. What the engine cannot do is refused by the key's name. */
export function readConfig(keys: Keys, contextTokensMax: number | undefined): BaseConfig {
  const architecture = readArchitecture(keys);
  const family = FAMILIES[architecture] as Family;
  requirePlain(keys);
  const hiddenSize = positiveInteger(keys, 'hidden_size');
  const heads = positiveInteger(keys, 'num_attention_heads');
  const kvHeads = keys.num_key_value_heads == null ? heads : positiveInteger(keys, 'num_key_value_heads');
  if (heads % kvHeads !== 0) throw malformed('num_key_value_heads', `a divisor of ${heads}`, kvHeads);
  const headDim = keys.head_dim == null ? hiddenSize / heads : positiveInteger(keys, 'head_dim');
  if (headDim % 2 !== 0) throw unsupported('head_dim', 'an even whole number', headDim);
  const trained = positiveInteger(keys, 'max_position_embeddings');
  const contextTokens = contextTokensMax ?? trained;
  if (contextTokens > trained)
    throw unsupported('--max-model-len', `at most the ${trained} of max_position_embeddings`, contextTokens);
  requireFullAttention(keys, family, contextTokens);
  const rope = readRope(keys, headDim);
  return {
    architecture,
    model: {
      layers: positiveInteger(keys, 'num_hidden_layers'),
      hiddenSize,
      heads,
      kvHeads,
      headDim,
      ffnSize: positiveInteger(keys, 'intermediate_size'),
      vocabSize: positiveInteger(keys, 'vocab_size'),
      contextTokens,
      rmsEps: positiveNumber(keys, 'rms_norm_eps'),
      ropeInvFreq: rope.invFreq,
      ropeAttentionScale: rope.attentionScale,
    },
    tiedEmbeddings: readSwitch(keys, 'tie_word_embeddings'),
    qkvBias: family.qkvBias,
    qkNorm: family.qkNorm,
  };
}

/** End tokens of generation_config.json, else of config.json; empty where neither names one. */
export function readEosTokenIds(config: Keys, generation: Keys | null): number[] {
  const value = generation?.eos_token_id ?? config.eos_token_id ?? [];
  const ids: unknown[] = Array.isArray(value) ? value : [value];
  if (ids.every((id) => Number.isSafeInteger(id) && (id as number) >= 0)) return ids as number[];
  throw malformed('eos_token_id', 'token ids', value);
}

function readArchitecture(keys: Keys): string {
  const names = keys.architectures;
  if (!Array.isArray(names) || names.length !== 1 || !Object.hasOwn(FAMILIES, names[0])) {
    throw unsupported('architectures', `one of ${Object.keys(FAMILIES).join(', ')}`, names);
  }
  return names[0];
}

function requirePlain(keys: Keys): void {
  if (keys.hidden_act !== 'silu') throw unsupported('hidden_act', 'silu', keys.hidden_act);
  if (keys.quantization_config != null) {
    const method = optionalKeys(keys, 'quantization_config')?.quant_method ?? keys.quantization_config;
    throw unsupported('quantization_config', 'no quantization', method);
  }
  for (const key of ['attention_bias', 'mlp_bias']) {
    if (readSwitch(keys, key)) throw unsupported(key, false, true);
  }
  const rotary = keys.partial_rotary_factor;
  if (rotary != null && rotary !== 1) throw unsupported('partial_rotary_factor', 1, rotary);
}

/** A window at least as long as the longest sequence never hides anything, so it is let through. */
function requireFullAttention(keys: Keys, family: Family, contextTokens: number): void {
  const types: unknown = keys.layer_types ?? [];
  if (!Array.isArray(types)) throw malformed('layer_types', 'a list', types);
  const strange = types.find((type) => type !== 'full_attention' && type !== 'sliding_attention');
  if (strange !== undefined) throw unsupported('layer_types', 'full_attention', strange);
  if (!family.slides(keys) && !types.includes('sliding_attention')) return;
  const window = positiveInteger(keys, 'sliding_window');
  if (window < contextTokens) {
    throw unsupported(
      'sliding_window',
      `none, or at least the ${contextTokens} tokens of the context (--max-model-len ${window} shortens it)`,
      window,
    );
  }
}
