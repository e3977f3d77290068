import { createHash } from 'node:crypto';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { headerLength } from '../../../server/contract/format/safetensors.ts';
import { ModelError } from '../../../server/model/errors.ts';
import { loadModel, withTokenizerEnd } from '../../../server/model/load.ts';

const FIXTURES = join(import.meta.dirname, '../../fixtures');
const made: string[] = [];

afterEach(() => {
  for (const dir of made.splice(0)) rmSync(dir, { recursive: true });
});

type Json = Record<string, unknown>;

/** A fixture with its config.json changed; undefined takes a key away. */
function changed(model: string, changes: Json, without: string[] = []): string {
  const dir = mkdtempSync(join(tmpdir(), 'lorikeet-model-'));
  made.push(dir);
  for (const name of readdirSync(join(FIXTURES, model))) {
    if (name !== 'config.json' && !without.includes(name))
      symlinkSync(join(FIXTURES, model, name), join(dir, name));
  }
  const config = JSON.parse(readFileSync(join(FIXTURES, model, 'config.json'), 'utf8')) as Json;
  writeFileSync(join(dir, 'config.json'), JSON.stringify({ ...config, ...changes }));
  return dir;
}

async function refusalOf(dir: string, contextTokens?: number): Promise<ModelError> {
  const options = contextTokens === undefined ? {} : { contextTokens };
  const error = await loadModel(dir, options).then(
    () => new Error('Expected a refusal'),
    (thrown: unknown) => thrown,
  );
  if (error instanceof ModelError) return error;
  throw error;
}

describe('the fixtures', () => {
  it.each([
    ['parrot', { layers: 4, hiddenSize: 256, heads: 8, kvHeads: 2, headDim: 32, ffnSize: 640 }],
    ['llama3', { layers: 3, hiddenSize: 96, heads: 6, kvHeads: 2, headDim: 16, ffnSize: 208 }],
    ['mistral', { layers: 2, hiddenSize: 80, heads: 5, kvHeads: 1, headDim: 16, ffnSize: 144 }],
    ['qwen2', { layers: 3, hiddenSize: 64, heads: 4, kvHeads: 2, headDim: 16, ffnSize: 176 }],
    ['qwen3', { layers: 3, hiddenSize: 64, heads: 4, kvHeads: 2, headDim: 32, ffnSize: 160 }],
  ])('reads %s', async (model, shape) => {
    const { descriptor, eosTokenIds, contextTokens, geometry } = await loadModel(join(FIXTURES, model));
    expect(descriptor.config).toMatchObject({
      ...shape,
      vocabSize: 1024,
      contextTokens: 2048,
      ropeAttentionScale: 1,
    });
    expect(descriptor.layers).toHaveLength(shape.layers);
    expect({ eosTokenIds, contextTokens }).toEqual({ eosTokenIds: [4, 1], contextTokens: 2048 });
    expect(geometry.modules.k_proj).toEqual({ in: shape.hiddenSize, out: shape.kvHeads * shape.headDim });
    expect(geometry.modules.down_proj).toEqual({ in: shape.ffnSize, out: shape.hiddenSize });
    expect(geometry.modules.embed_tokens).toEqual({ in: 1024, out: shape.hiddenSize });
    expect(geometry.modules.lm_head).toEqual({ in: shape.hiddenSize, out: 1024 });
  });

  it('gives each family its options', async () => {
    const [llama, qwen2, qwen3] = await Promise.all(
      ['parrot', 'qwen2', 'qwen3'].map((m) => loadModel(join(FIXTURES, m))),
    );
    expect(llama?.descriptor.layers[0]).toMatchObject({ qBias: null, qNorm: null });
    expect(qwen2?.descriptor.layers[0]).toMatchObject({
      qBias: { shape: [64] },
      vBias: { shape: [32] },
      qNorm: null,
    });
    expect(qwen3?.descriptor.layers[0]).toMatchObject({
      qBias: null,
      qNorm: { shape: [32] },
      kNorm: { shape: [32] },
    });
    expect(llama?.descriptor.lmHead).not.toEqual(llama?.descriptor.embedTokens);
    expect(qwen2?.descriptor.lmHead).toBe(qwen2?.descriptor.embedTokens);
  });

  it('finds tensors in their shards', async () => {
    const { descriptor } = await loadModel(join(FIXTURES, 'qwen2'));
    expect(descriptor.files.map((file) => file.slice(-32))).toEqual(
      [1, 2, 3].map((shard) => `model-0000${shard}-of-00003.safetensors`),
    );
    const { gateProj } = descriptor.layers[0] ?? {};
    const file = readFileSync(descriptor.files[gateProj?.file ?? 0] ?? '');
    const header = JSON.parse(file.toString('utf8', 8, headerLength(file))) as Record<
      string,
      { data_offsets: number[] }
    >;
    const [begin = 0, end = 0] = header['model.layers.0.mlp.gate_proj.weight']?.data_offsets ?? [];
    expect(gateProj).toMatchObject({
      offset: headerLength(file) + begin,
      bytes: end - begin,
      dtype: 'BF16',
      shape: [176, 64],
    });
  });

  it('names the base by config.json and every shard', async () => {
    const hash = (name: string) =>
      createHash('sha256')
        .update(readFileSync(join(FIXTURES, 'qwen2', name)))
        .digest('hex');
    const files = ['config.json', ...[1, 2, 3].map((shard) => `model-0000${shard}-of-00003.safetensors`)];
    const identity = `base-v1\n${files.map((name) => `${hash(name)}\n`).join('')}`;
    const expected = createHash('sha256').update(identity).digest('hex');
    expect((await loadModel(join(FIXTURES, 'qwen2'))).digest).toBe(`sha256:${expected}`);
  });
});

describe('config.json', () => {
  it('reads the layouts of transformers 4 and 5 to the same model', async () => {
    const layout4 = {
      rope_parameters: undefined,
      dtype: undefined,
      rope_theta: 10000.0,
      torch_dtype: 'bfloat16',
    };
    const [five, four] = [
      await loadModel(changed('parrot', {})),
      await loadModel(changed('parrot', layout4)),
    ];
    expect(four.descriptor.config).toEqual(five.descriptor.config);
  });

  it('derives head_dim and KV heads where they are not written', async () => {
    const { descriptor } = await loadModel(changed('parrot', { head_dim: null }));
    expect(descriptor.config.headDim).toBe(32);
    expect((await refusalOf(changed('parrot', { num_key_value_heads: null }))).field).toBe(
      'model.layers.0.self_attn.k_proj.weight',
    );
  });

  it('may begin with a byte order mark', async () => {
    const dir = changed('parrot', {});
    const config = readFileSync(join(dir, 'config.json'));
    writeFileSync(join(dir, 'config.json'), Buffer.concat([Buffer.from('\ufeff'), config]));
    expect((await loadModel(dir)).descriptor.config.layers).toBe(4);
  });

  it('takes a shorter context', async () => {
    const { contextTokens } = await loadModel(join(FIXTURES, 'parrot'), { contextTokens: 128 });
    expect(contextTokens).toBe(128);
  });

  it('takes no longer context than the model was trained for', async () => {
    expect(await refusalOf(join(FIXTURES, 'parrot'), 2049)).toMatchObject({
      code: 'unsupported_model',
      field: '--max-model-len',
      actual: 2049,
    });
  });

  it.each<[string, string, Json]>([
    ['architectures', 'parrot', { architectures: ['GemmaForCausalLM'] }],
    ['architectures', 'parrot', { architectures: undefined }],
    ['hidden_act', 'parrot', { hidden_act: 'gelu' }],
    ['quantization_config', 'parrot', { quantization_config: { quant_method: 'gptq', bits: 4 } }],
    ['attention_bias', 'parrot', { attention_bias: true }],
    ['mlp_bias', 'parrot', { mlp_bias: true }],
    ['rope_type', 'parrot', { rope_parameters: { rope_type: 'yarn', rope_theta: 10000, factor: 4 } }],
    ['rope_type', 'llama3', { rope_scaling: { type: 'dynamic', factor: 2 } }],
    ['partial_rotary_factor', 'parrot', { partial_rotary_factor: 0.5 }],
    [
      'rope_parameters.partial_rotary_factor',
      'parrot',
      { rope_parameters: { rope_theta: 1e4, partial_rotary_factor: 0.5 } },
    ],
    ['sliding_window', 'mistral', { sliding_window: 1024 }],
    ['sliding_window', 'qwen2', { use_sliding_window: true, sliding_window: 512 }],
    [
      'sliding_window',
      'qwen3',
      { layer_types: ['full_attention', 'sliding_attention', 'full_attention'], sliding_window: 512 },
    ],
    ['layer_types', 'qwen3', { layer_types: ['chunked_attention'] }],
    ['head_dim', 'parrot', { head_dim: 31 }],
  ])('refuses %s in %s: %j', async (field, model, changes) => {
    expect(await refusalOf(changed(model, changes))).toMatchObject({ code: 'unsupported_model', field });
  });

  it.each<[string, Json]>([
    ['hidden_size', { hidden_size: '256' }],
    ['num_hidden_layers', { num_hidden_layers: 0 }],
    ['vocab_size', { vocab_size: 2 ** 40 }],
    ['rms_norm_eps', { rms_norm_eps: 0 }],
    ['num_key_value_heads', { num_key_value_heads: 3 }],
    ['tie_word_embeddings', { tie_word_embeddings: 'yes' }],
    ['rope_scaling', { rope_scaling: { rope_type: 'linear', factor: 2 } }],
    ['rope_theta', { rope_theta: 500000 }],
  ])('refuses a wrong %s: %j', async (field, changes) => {
    expect(await refusalOf(changed('parrot', changes))).toMatchObject({ code: 'malformed_model', field });
  });

  it('lets a window through that no sequence reaches', async () => {
    const dir = changed('mistral', { sliding_window: 1024 });
    await expect(loadModel(dir, { contextTokens: 1024 })).resolves.toMatchObject({ contextTokens: 1024 });
    const refusal = await refusalOf(dir, 1025);
    expect(refusal.field).toBe('sliding_window');
    expect(refusal.message).toContain('--max-model-len 1024');
    await expect(
      loadModel(changed('qwen2', { use_sliding_window: false, sliding_window: 512 })),
    ).resolves.toBeDefined();
  });
});

describe('generation_config.json', () => {
  const generating = (changes: Json): string => {
    const dir = changed('parrot', {}, ['generation_config.json']);
    writeFileSync(join(dir, 'generation_config.json'), JSON.stringify(changes));
    return dir;
  };
  const own = { eos_token_id: [4], temperature: 0.5 };

  it('gives sampling defaults and end tokens', async () => {
    expect(await loadModel(generating(own))).toMatchObject({
      eosTokenIds: [4],
      samplingDefaults: { temperature: 0.5 },
    });
  });

  it.each<[string, number | null, number[]]>([
    ['that it lacks is added', 1, [4, 1]],
    ['that it has changes nothing', 4, [4]],
    ['that there is not changes nothing', null, [4]],
    ['that the model has no row for changes nothing', 1024, [4]],
  ])("with the tokenizer's end token %s", async (_what, end, eosTokenIds) => {
    expect(withTokenizerEnd(await loadModel(generating(own)), end).eosTokenIds).toEqual(eosTokenIds);
  });

  it('gives end tokens alone where its defaults are turned off', async () => {
    const loaded = await loadModel(generating(own), { generationConfig: 'vllm' });
    expect({ ...loaded.samplingDefaults, eos: loaded.eosTokenIds }).toEqual({ eos: [4] });
  });

  it('may be of another folder, which must have one', async () => {
    const other = generating({ eos_token_id: 1, top_k: 3 });
    expect(await loadModel(generating(own), { generationConfig: other })).toMatchObject({
      eosTokenIds: [1],
      samplingDefaults: { top_k: 3 },
    });
    const bare = changed('parrot', {}, ['generation_config.json']);
    await expect(loadModel(generating(own), { generationConfig: bare })).rejects.toMatchObject({
      code: 'missing_file',
      field: expect.stringContaining('generation_config.json'),
    });
  });
});

describe('tensors', () => {
  it('refuses one of another shape, naming both', async () => {
    expect(await refusalOf(changed('parrot', { intermediate_size: 641 }))).toMatchObject({
      code: 'malformed_model',
      field: 'model.layers.0.mlp.gate_proj.weight',
      expected: [641, 256],
      actual: [640, 256],
    });
  });

  it('refuses a missing one and one without use', async () => {
    expect((await refusalOf(changed('parrot', { num_hidden_layers: 5 }))).field).toBe(
      'model.layers.4.input_layernorm.weight',
    );
    expect(await refusalOf(changed('parrot', { num_hidden_layers: 3 }))).toMatchObject({
      code: 'unsupported_model',
      field: expect.stringContaining('model.layers.3.'),
    });
    expect((await refusalOf(changed('qwen2', { tie_word_embeddings: false }))).field).toBe('lm_head.weight');
  });

  it('ignores a stored head where embeddings are tied', async () => {
    const { descriptor } = await loadModel(changed('parrot', { tie_word_embeddings: true }));
    expect(descriptor.lmHead).toBe(descriptor.embedTokens);
  });

  it('refuses missing files by name', async () => {
    expect((await refusalOf('/nowhere')).code).toBe('missing_file');
    expect((await refusalOf(changed('parrot', {}, ['model.safetensors']))).field).toContain(
      'model.safetensors',
    );
    expect((await refusalOf(changed('qwen2', {}, ['model-00002-of-00003.safetensors']))).field).toContain(
      'model-00002',
    );
  });

  it('refuses a shard that was cut off', async () => {
    const dir = changed('parrot', {}, ['model.safetensors']);
    const weights = readFileSync(join(FIXTURES, 'parrot/model.safetensors'));
    writeFileSync(join(dir, 'model.safetensors'), weights);
    truncateSync(join(dir, 'model.safetensors'), weights.length - 1);
    const refusal = await refusalOf(dir);
    expect(refusal.code).toBe('malformed_model');
    expect(refusal.message).toContain('truncated');
  });

  it.each([
    ['leads out of the directory', '../parrot/model.safetensors'],
    ['is no safetensors file', 'pytorch_model.bin'],
  ])('refuses an index whose shard %s', async (_what, shard) => {
    const dir = changed('qwen2', {}, ['model.safetensors.index.json']);
    writeFileSync(
      join(dir, 'model.safetensors.index.json'),
      JSON.stringify({ weight_map: { 'model.norm.weight': shard } }),
    );
    expect(await refusalOf(dir)).toMatchObject({ code: 'malformed_model', actual: shard });
  });

  it('refuses an index that contradicts the shards', async () => {
    const dir = changed('qwen2', {}, ['model.safetensors.index.json']);
    const index = JSON.parse(readFileSync(join(FIXTURES, 'qwen2/model.safetensors.index.json'), 'utf8')) as {
      weight_map: Json;
    };
    index.weight_map['model.norm.weight'] = 'model-00001-of-00003.safetensors';
    writeFileSync(join(dir, 'model.safetensors.index.json'), JSON.stringify(index));
    expect(await refusalOf(dir)).toMatchObject({ code: 'malformed_model', field: 'model.norm.weight' });
  });
});
