import { copyFile, mkdir, open, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { safetensorsLayout, type TensorSpec } from '../../support/safetensors-file.ts';
import { benchCache, makeOnce, say } from './cache.ts';
import { bf16Ones, Noise } from './noise.ts';
import { projectionPath, projections, RMS_EPS, type Shape } from './shape.ts';

const TOKENIZER_FROM = resolve(import.meta.dirname, '../../fixtures/parrot');
/** Raised when the bytes of a model change. */
const VERSION = 2;

export function modelFolder(shape: Shape): string {
  return join(benchCache(), `llama-${shape.name}-v${VERSION}`);
}

/**
 * A Hugging Face folder of this shape in bf16, made when it is not there. Its weights are noise of a trained model's
 * size, so numbers stay finite and no two logits tie, but the answers mean nothing.
 */
export function ensureModel(shape: Shape): Promise<string> {
  return makeOnce(modelFolder(shape), async (partial) => {
    await mkdir(partial);
    await copyFile(join(TOKENIZER_FROM, 'tokenizer_config.json'), join(partial, 'tokenizer_config.json'));
    await writeFile(join(partial, 'tokenizer.json'), await tokenizer(shape.vocab));
    await writeFile(join(partial, 'config.json'), JSON.stringify(modelConfig(shape), null, 2));
    await writeWeights(join(partial, 'model.safetensors'), modelTensors(shape));
  });
}

/** With a word for every token of the vocabulary: a stream has an event per token, as a trained model's has. */
async function tokenizer(vocab: number): Promise<string> {
  const parsed = JSON.parse(await readFile(join(TOKENIZER_FROM, 'tokenizer.json'), 'utf8'));
  const words = parsed.model.vocab as Record<string, number>;
  const taken = new Set(Object.values(words));
  for (const { id } of parsed.added_tokens as { id: number }[]) taken.add(id);
  for (let id = 0; id < vocab; id++) if (!taken.has(id)) words[`w${id}`] = id;
  return JSON.stringify(parsed);
}

function modelTensors(shape: Shape): TensorSpec[] {
  const { hidden, vocab, layers } = shape;
  const tensors: TensorSpec[] = [
    { name: 'model.embed_tokens.weight', dtype: 'BF16', shape: [vocab, hidden] },
  ];
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`;
    for (const [module, size] of Object.entries(projections(shape))) {
      tensors.push({ name: `${prefix}.${projectionPath(module)}.weight`, dtype: 'BF16', shape: size });
    }
    for (const norm of ['input_layernorm', 'post_attention_layernorm']) {
      tensors.push({ name: `${prefix}.${norm}.weight`, dtype: 'BF16', shape: [hidden] });
    }
  }
  tensors.push({ name: 'model.norm.weight', dtype: 'BF16', shape: [hidden] });
  tensors.push({ name: 'lm_head.weight', dtype: 'BF16', shape: [vocab, hidden] });
  return tensors;
}

async function writeWeights(path: string, tensors: TensorSpec[]): Promise<void> {
  const { head, totalBytes } = safetensorsLayout(tensors);
  const noise = new Noise();
  const file = await open(path, 'w');
  try {
    await file.writeFile(head);
    let bytes = head.length;
    let saidAt = Date.now();
    say(`writing ${(totalBytes / 1e9).toFixed(1)} GB of weights to ${path}`);
    for (const { shape } of tensors) {
      const values = shape.reduce((product, size) => product * size, 1);
      for (const chunk of shape.length === 1 ? [bf16Ones(values)] : noise.take(values)) {
        await file.writeFile(chunk);
        bytes += chunk.length;
        if (Date.now() - saidAt < 3_000) continue;
        say(`${((100 * bytes) / totalBytes).toFixed(0)} % of the weights`);
        saidAt = Date.now();
      }
    }
  } finally {
    await file.close();
  }
}

function modelConfig(shape: Shape): Record<string, unknown> {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_act: 'silu',
    hidden_size: shape.hidden,
    intermediate_size: shape.ffn,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    num_key_value_heads: shape.kvHeads,
    head_dim: shape.headDim,
    vocab_size: shape.vocab,
    max_position_embeddings: shape.contextTokens,
    rms_norm_eps: RMS_EPS,
    rope_theta: shape.ropeTheta,
    tie_word_embeddings: false,
    attention_bias: false,
    mlp_bias: false,
    torch_dtype: 'bfloat16',
    bos_token_id: 1,
    eos_token_id: 2,
  };
}
