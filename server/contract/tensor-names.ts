import { LorikeetError } from './errors.ts';

export interface FactorName {
  layer: number;
  module: string;
  factor: 'lora_A' | 'lora_B';
  /** Where PEFT sees the module: `model.layers.0.self_attn.q_proj`. */
  path: string;
}

// Wrappers of torch.compile, FSDP and activation checkpointing can stand anywhere in a state dict's key; those of
// DDP and PEFT, and a doubled `model.`, only in front.
const WRAPPERS = /(?<=^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\./g;
const PREFIX = /^(?:module\.|base_model\.model\.)*(?:model\.)*(?=layers\.)/;
const FACTOR =
  /^layers\.(\d{1,6})\.(?:(self_attn|mlp)\.)?([A-Za-z0-9_]+)\.(lora_[AB])(?:\.[A-Za-z0-9_-]+)?\.weight$/;

const PARENTS: Record<string, string> = {
  q_proj: 'self_attn',
  k_proj: 'self_attn',
  v_proj: 'self_attn',
  o_proj: 'self_attn',
  gate_proj: 'mlp',
  up_proj: 'mlp',
  down_proj: 'mlp',
};

// What PEFT can save beside the factors of linear layers. Each changes the model, so none may be dropped silently.
const FEATURES: [RegExp, string][] = [
  [/\.lora_magnitude_vector(\.|$)/, 'lora_magnitude_vector (DoRA)'],
  [/\.lora_embedding_[AB](\.|$)/, 'lora_embedding (LoRA of embed_tokens)'],
  [/\.lora_[AB](\.[^.]+)?\.bias$/, 'lora_bias'],
  [/(^|\.)lm_head\./, 'lm_head'],
  [/(^|\.)embed_tokens\./, 'embed_tokens'],
  [/\.modules_to_save\./, 'modules_to_save'],
  [/\.(trainable_tokens|token_adapter)/, 'trainable_token_indices'],
  [/\.base_layer\./, 'base_layer (weights of the base model)'],
];

/** Whole path of a module, as `target_modules` and `rank_pattern` see it. */
export function modulePath(layer: number, module: string): string {
  return `model.layers.${layer}.${PARENTS[module]}.${module}`;
}

/** Reads which factor of which module a tensor is; refuses every name that is none, naming it. */
export function readFactorName(name: string): FactorName {
  for (const [pattern, feature] of FEATURES) {
    if (pattern.test(name)) {
      throw new LorikeetError(
        'unsupported_adapter_feature',
        `Tensor ${name} belongs to ${feature}, which this server does not apply`,
        { field: name, expected: 'lora_A and lora_B of linear layers', actual: feature },
      );
    }
  }
  const found = FACTOR.exec(name.replace(WRAPPERS, '').replace(PREFIX, ''));
  if (found === null) throw unexpected(name);
  const [, layerText, parent, module = '', factor] = found;
  if (PARENTS[module] !== undefined && PARENTS[module] !== parent) throw unexpected(name);
  const layer = Number(layerText);
  return { layer, module, factor: factor as FactorName['factor'], path: modulePath(layer, module) };
}

function unexpected(name: string): LorikeetError {
  const expected = 'base_model.model.model.layers.<n>.<self_attn|mlp>.<module>.<lora_A|lora_B>.weight';
  return new LorikeetError(
    'unexpected_tensor',
    `Expected a name like ${expected} but received tensor ${name}`,
    {
      field: name,
      expected,
      actual: name,
    },
  );
}
