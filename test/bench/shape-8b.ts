import { copyFile, mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { bf16Noise, safetensorsLayout, type TensorSpec } from '../support/safetensors-file.ts';

const HIDDEN = 4096;
const FFN = 14_336;
const KV = 1024;
const VOCAB = 128_256;
const LAYERS = 32;

const WIDTHS: Record<string, [out: number, input: number]> = {
  'self_attn.q_proj': [HIDDEN, HIDDEN],
  'self_attn.k_proj': [KV, HIDDEN],
  'self_attn.v_proj': [KV, HIDDEN],
  'self_attn.o_proj': [HIDDEN, HIDDEN],
  'mlp.gate_proj': [FFN, HIDDEN],
  'mlp.up_proj': [FFN, HIDDEN],
  'mlp.down_proj': [HIDDEN, FFN],
};

/**
 * A base of Llama 3.1 8B's shape. Its file is sparse, so its weights are zeros: every byte is read and multiplied
 * as in a trained one, but the answers mean nothing.
 */
export async function writeBase8B(dir: string, tokenizerFrom: string): Promise<void> {
  await mkdir(dir, { recursive: true });
  const tensors: TensorSpec[] = [
    { name: 'model.embed_tokens.weight', dtype: 'BF16', shape: [VOCAB, HIDDEN] },
    { name: 'model.norm.weight', dtype: 'BF16', shape: [HIDDEN] },
    { name: 'lm_head.weight', dtype: 'BF16', shape: [VOCAB, HIDDEN] },
  ];
  for (let layer = 0; layer < LAYERS; layer++) {
    for (const [module, shape] of Object.entries(WIDTHS)) {
      tensors.push({ name: `model.layers.${layer}.${module}.weight`, dtype: 'BF16', shape });
    }
    for (const norm of ['input_layernorm', 'post_attention_layernorm']) {
      tensors.push({ name: `model.layers.${layer}.${norm}.weight`, dtype: 'BF16', shape: [HIDDEN] });
    }
  }
  const { head, totalBytes } = safetensorsLayout(tensors);
  const file = await open(join(dir, 'model.safetensors'), 'w');
  await file.write(head);
  await file.truncate(totalBytes);
  await file.close();
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_act: 'silu',
    hidden_size: HIDDEN,
    intermediate_size: FFN,
    num_hidden_layers: LAYERS,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 128,
    vocab_size: VOCAB,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 500_000,
    tie_word_embeddings: false,
    torch_dtype: 'bfloat16',
    bos_token_id: 0,
    eos_token_id: 4,
  };
  await writeFile(join(dir, 'config.json'), JSON.stringify(config));
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
    await copyFile(join(tokenizerFrom, name), join(dir, name));
  }
}

/** A rank-16 bf16 adapter on all 7 modules of that base: 84 MB of seeded noise. */
export function adapter8B(seed: string): { config: Buffer; tensors: Buffer } {
  const rank = 16;
  const tensors: TensorSpec[] = [];
  for (let layer = 0; layer < LAYERS; layer++) {
    for (const [module, [out, input]] of Object.entries(WIDTHS)) {
      const path = `base_model.model.model.layers.${layer}.${module}`;
      tensors.push({ name: `${path}.lora_A.weight`, dtype: 'BF16', shape: [rank, input] });
      tensors.push({ name: `${path}.lora_B.weight`, dtype: 'BF16', shape: [out, rank] });
    }
  }
  const { head, totalBytes } = safetensorsLayout(tensors);
  const config = {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    r: rank,
    lora_alpha: 32,
    bias: 'none',
    target_modules: Object.keys(WIDTHS).map((module) => module.split('.')[1]),
  };
  const noise = bf16Noise((totalBytes - head.length) / 2, seed);
  return { config: Buffer.from(JSON.stringify(config)), tensors: Buffer.concat([head, noise]) };
}
