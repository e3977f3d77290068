import { expected, type LorikeetError } from '../errors.ts';

/** `copy`: the base's own weight, which PEFT saves beside the factors of the embedding and the head. */
export type Part = 'a' | 'b' | 'copy';

export interface TensorName {
  /** 0 for a module that is in no layer. */
  layer: number;
  module: string;
  part: Part;
  /** Where PEFT sees the module: `model.layers.0.self_attn.q_proj`. */
  path: string;
}

// Wrappers of torch.compile, FSDP and activation checkpointing can stand anywhere in a state dict's key; those of
// DDP and PEFT, and a doubled `model.`, only in front.
const WRAPPERS = /(?<=^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\./g;
const PREFIX = /^(?:module\.|base_model\.model\.)*(?:model\.)*(?=layers\.|embed_tokens\.|lm_head\.)/;
const LAYER_FACTOR =
  /^layers\.(\d{1,6})\.(?:(self_attn|mlp)\.)?([A-Za-z0-9_]+)\.lora_([AB])(?:\.[A-Za-z0-9_-]+)?\.weight$/;
const EMBEDDING_FACTOR = /^embed_tokens\.lora_embedding_([AB])(?:\.(?!(?:weight|bias)$)[A-Za-z0-9_-]+)?$/;
const HEAD_FACTOR = /^lm_head\.lora_([AB])(?:\.[A-Za-z0-9_-]+)?\.weight$/;
const COPY = /^(embed_tokens|lm_head)\.base_layer\.weight$/;

/** The part of a layer that a module is in. */
export const PARENTS: Readonly<Record<string, string>> = {
  q_proj: 'self_attn',
  k_proj: 'self_attn',
  v_proj: 'self_attn',
  o_proj: 'self_attn',
  gate_proj: 'mlp',
  up_proj: 'mlp',
  down_proj: 'mlp',
};
const OUTSIDE_LAYERS = new Map([
  ['embed_tokens', 'model.embed_tokens'],
  ['lm_head', 'lm_head'],
]);

// What PEFT can save beside the factors. Each changes the model, so none may be dropped silently.
const FEATURES: [RegExp, string][] = [
  [/\.lora_magnitude_vector(\.|$)/, 'lora_magnitude_vector (DoRA)'],
  [/\.lora_[AB](\.[^.]+)?\.bias$/, 'lora_bias'],
  [/(^|\.)lm_head\.(?!lora_)/, 'lm_head (other than its LoRA)'],
  [/(^|\.)embed_tokens\.(?!lora_)/, 'embed_tokens (other than its LoRA)'],
  [/\.modules_to_save\./, 'modules_to_save'],
  [/\.(trainable_tokens|token_adapter)/, 'trainable_token_indices'],
  [/\.base_layer\./, 'base_layer (weights of the base model)'],
];

/** Whole path of a module, as `target_modules` and `rank_pattern` see it. */
export function modulePath(layer: number, module: string): string {
  return OUTSIDE_LAYERS.get(module) ?? `model.layers.${layer}.${PARENTS[module]}.${module}`;
}

export function isInLayers(module: string): boolean {
  return !OUTSIDE_LAYERS.has(module);
}

/** The name of a part inside its module: `lora_A`, `lora_embedding_B`, `base_layer.weight`. */
export function partName(module: string, part: Part): string {
  if (part === 'copy') return 'base_layer.weight';
  return `${module === 'embed_tokens' ? 'lora_embedding' : 'lora'}_${part.toUpperCase()}`;
}

/** Reads which part of which module a tensor is; refuses every name that is none, naming it. */
export function readTensorName(name: string): TensorName {
  const unwrapped = name.replace(WRAPPERS, '');
  const bare = unwrapped.replace(PREFIX, '');
  const copied = COPY.exec(bare)?.[1];
  if (copied !== undefined) return outsideLayers(copied, 'copy');
  refuseFeatures(name, unwrapped);
  const side = (letter = '') => letter.toLowerCase() as 'a' | 'b';
  const embedding = EMBEDDING_FACTOR.exec(bare);
  if (embedding !== null) return outsideLayers('embed_tokens', side(embedding[1]));
  const head = HEAD_FACTOR.exec(bare);
  if (head !== null) return outsideLayers('lm_head', side(head[1]));
  const [, layerText, parent, module = '', letter] = LAYER_FACTOR.exec(bare) ?? [];
  const fits = layerText !== undefined && isInLayers(module);
  if (!fits || (PARENTS[module] !== undefined && PARENTS[module] !== parent)) throw unexpected(name);
  const layer = Number(layerText);
  return { layer, module, part: side(letter), path: modulePath(layer, module) };
}

function outsideLayers(module: string, part: Part): TensorName {
  return { layer: 0, module, part, path: modulePath(0, module) };
}

function refuseFeatures(name: string, unwrapped: string): void {
  const [, feature] = FEATURES.find(([pattern]) => pattern.test(unwrapped)) ?? [];
  if (feature === undefined) return;
  throw expected(
    'unsupported_adapter_feature',
    name,
    'a factor of LoRA, as others are not applied,',
    feature,
  );
}

function unexpected(name: string): LorikeetError {
  const like = /embed_tokens/.test(name)
    ? 'base_model.model.model.embed_tokens.<lora_embedding_A|lora_embedding_B>'
    : /lm_head/.test(name)
      ? 'base_model.model.lm_head.<lora_A|lora_B>.weight'
      : 'base_model.model.model.layers.<n>.<self_attn|mlp>.<module>.<lora_A|lora_B>.weight';
  return expected('unexpected_tensor', name, `a name like ${like}`, name);
}
