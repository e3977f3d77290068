import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { headerLength } from '../../../server/contract/format/safetensors.ts';
import { loadModel } from '../../../server/model/load.ts';
import {
  EMBEDDING,
  factorName,
  goodTensors,
  HEAD,
  type Tensor,
  type Tensors,
} from '../../support/adapter-files.ts';
import { PARROT_GEOMETRY } from '../../support/parrot-geometry.ts';
import { bind, bindFiles, fixtureFiles, layerTensors, ones } from './binding.ts';
import { refusalOf } from './refusal.ts';

const BOTH = { target_modules: ['embed_tokens', 'lm_head'] };
const both = () => layerTensors(['embed_tokens', 'lm_head']);
const withTensors = (tensors: Tensors, ...more: [string, Tensor][]): Tensors =>
  new Map([...tensors, ...more]);
const without = (tensors: Tensors, ...names: string[]): Tensors =>
  new Map([...tensors].filter(([name]) => !names.includes(name)));
const copyOf = (path: string, ...shape: number[]): [string, Tensor] => [
  `${path}.base_layer.weight`,
  ones(...shape),
];

describe('binding LoRA of the embedding and the head', () => {
  it('binds what PEFT saves, and does not read the copies of the base', () => {
    const files = fixtureFiles('embed-and-head');
    const bound = bindFiles(files);
    expect(bound.modules).toHaveLength(10);
    expect(bound).toMatchObject({ ranks: [8], layers: [0, 1, 2, 3], dtypes: ['F32'] });
    expect(bound.targetModules).toEqual(['q_proj', 'v_proj', 'embed_tokens', 'lm_head']);
    expect(bound.warnings).toEqual([
      "lm_head.base_layer.weight is taken for a copy of the base's and is not read",
      "model.embed_tokens.base_layer.weight is taken for a copy of the base's and is not read",
    ]);
    const start = headerLength(files.tensors);
    const at = (offset: number) => ({ offset: start + offset, dtype: 'F32' });
    expect(bound.modules.filter(({ module }) => module === 'lm_head')).toEqual([
      { layer: 0, module: 'lm_head', rank: 8, scale: 2, a: at(1_048_576), b: at(1_056_768) },
    ]);
    expect(bound.modules.filter(({ module }) => module === 'embed_tokens')).toEqual([
      { layer: 0, module: 'embed_tokens', rank: 8, scale: 2, a: at(2_138_112), b: at(2_170_880) },
    ]);
  });

  it('binds them alone: no layer is adapted', () => {
    const bound = bind(both(), BOTH);
    expect(bound.modules.map(({ module }) => module)).toEqual(['embed_tokens', 'lm_head']);
    expect(bound).toMatchObject({ layers: [], warnings: [] });
  });

  it('takes rank and alpha by patterns over their paths', () => {
    const tensors = withTensors(
      both(),
      [factorName(0, 'lm_head', 'A'), ones(4, 256)],
      [factorName(0, 'lm_head', 'B'), ones(1024, 4)],
    );
    const config = { ...BOTH, rank_pattern: { lm_head: 4 }, alpha_pattern: { 'model.embed_tokens': 4 } };
    expect(bind(tensors, config).modules).toMatchObject([
      { module: 'embed_tokens', rank: 8, scale: 4 / 8 },
      { module: 'lm_head', rank: 4, scale: 16 / 4 },
    ]);
    expect(bind(tensors, { ...config, rank_pattern: { '^lm_head': 4 } }).ranks).toEqual([4, 8]);
    expect(refusalOf(() => bind(tensors, BOTH))).toMatchObject({
      code: 'rank_mismatch',
      field: 'lm_head.lora_A',
    });
  });

  it.each<[string, Record<string, unknown>, string[]]>([
    ['a whole path', { target_modules: ['model.embed_tokens'] }, ['embed_tokens']],
    ['a pattern', { target_modules: '.*embed_tokens|lm_head' }, ['embed_tokens', 'lm_head']],
    ['exclusion', { ...BOTH, exclude_modules: ['lm_head'] }, ['embed_tokens']],
    ['exclusion by pattern', { ...BOTH, exclude_modules: 'model\\..*' }, ['lm_head']],
    // PEFT takes a whole path whatever its layer, and `lm_head` is one; embed_tokens has no layer to be chosen by.
    ['layers', { ...BOTH, layers_to_transform: [0] }, ['lm_head']],
    [
      'layers and whole paths',
      { target_modules: ['model.embed_tokens', 'lm_head'], layers_to_transform: [3] },
      ['embed_tokens', 'lm_head'],
    ],
  ])('knows what the config targets by %s', (_what, config, modules) => {
    expect(bind(layerTensors(modules), config).targetModules).toEqual(modules);
    if (modules.length === 2) return;
    expect(refusalOf(() => bind(both(), config)).code).toBe('unexpected_tensor');
  });

  it('does not count them to all-linear', () => {
    const tensors = new Map([...goodTensors(), ...both()]);
    const config = { target_modules: 'all-linear', exclude_modules: '.*(k|o|gate|up|down)_proj' };
    expect(bind(goodTensors(), config).modules).toHaveLength(8);
    expect(refusalOf(() => bind(tensors, config))).toMatchObject({
      code: 'unexpected_tensor',
      field: 'base_model.model.model.embed_tokens.lora_embedding_A',
    });
  });

  it.each([
    ['the adapter name', (name: string) => name.replace(/(lora_(?:embedding_)?[AB])/, '$1.default')],
    ['no PEFT prefix', (name: string) => name.replace('base_model.model.', '')],
    [
      'a doubled model prefix',
      (name: string) => name.replace('base_model.model.', 'base_model.model.model.'),
    ],
    ['a DDP prefix', (name: string) => `module.${name}`],
    ['a compile prefix', (name: string) => `_orig_mod.${name}`],
    [
      'FSDP wrappers',
      (name: string) =>
        name.replace(/(embed_tokens|lm_head)/, '_fsdp_wrapped_module.$1._fsdp_wrapped_module'),
    ],
  ])('takes names with %s', (_what, rename) => {
    const tensors = withTensors(both(), copyOf(HEAD, 1024, 256), copyOf(EMBEDDING, 1024, 256));
    const bound = bind(new Map([...tensors].map(([name, tensor]) => [rename(name), tensor])), BOTH);
    expect(bound.modules).toHaveLength(2);
    expect(bound.warnings).toHaveLength(2);
  });

  it.each([
    ['linear factors of the embedding', `${EMBEDDING}.lora_A.weight`, 'unexpected_tensor'],
    ['embedding factors of the head', `${HEAD}.lora_embedding_A`, 'unexpected_tensor'],
    ['embedding factors with .weight', `${EMBEDDING}.lora_embedding_A.weight`, 'unexpected_tensor'],
    [
      'the head of another model',
      'base_model.model.language_model.lm_head.lora_A.weight',
      'unexpected_tensor',
    ],
    ['a bias of lora_B', `${HEAD}.lora_B.bias`, 'unsupported_adapter_feature'],
    ['a magnitude vector', `${HEAD}.lora_magnitude_vector`, 'unsupported_adapter_feature'],
    ['a whole head', `${HEAD}.weight`, 'unsupported_adapter_feature'],
    ['a whole embedding', `${EMBEDDING}.weight`, 'unsupported_adapter_feature'],
    ['a saved head', `${HEAD}.modules_to_save.weight`, 'unsupported_adapter_feature'],
    ['trained tokens', `${EMBEDDING}.token_adapter.trainable_tokens_delta`, 'unsupported_adapter_feature'],
    ['a bias of the base', `${HEAD}.base_layer.bias`, 'unsupported_adapter_feature'],
    ['a copy of a wrapped base', `${HEAD}.base_layer.base_layer.weight`, 'unsupported_adapter_feature'],
    ['a copy in a factor', `${HEAD}.lora_A.base_layer.weight`, 'unsupported_adapter_feature'],
    [
      "a copy of a layer's weight",
      'base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight',
      'unsupported_adapter_feature',
    ],
    [
      'a copy of another model',
      'base_model.model.language_model.lm_head.base_layer.weight',
      'unsupported_adapter_feature',
    ],
  ])('refuses %s beside them', (_what, name, code) => {
    expect(refusalOf(() => bind(withTensors(both(), [name, ones(1024, 256)]), BOTH))).toMatchObject({
      code,
      field: name,
    });
  });

  const A = factorName(0, 'embed_tokens', 'A');
  const B = factorName(0, 'lm_head', 'B');
  it.each<[string, Tensors, string, string]>([
    ['no factors of the head', layerTensors(['embed_tokens']), 'missing_tensor', 'lm_head'],
    ['no A', without(both(), A), 'missing_tensor', 'model.embed_tokens.lora_embedding_A'],
    ['no B', without(both(), B), 'missing_tensor', 'lm_head.lora_B'],
    [
      'a copy in place of factors',
      withTensors(layerTensors(['embed_tokens']), copyOf(HEAD, 1024, 256)),
      'missing_tensor',
      'lm_head',
    ],
    [
      'a layer more',
      withTensors(both(), ...layerTensors(['q_proj'])),
      'unexpected_tensor',
      factorName(0, 'q_proj', 'A'),
    ],
    [
      'A transposed, as lora_A of a linear layer would be',
      withTensors(both(), [A, ones(1024, 8)]),
      'shape_mismatch',
      'model.embed_tokens.lora_embedding_A',
    ],
    ['a vocabulary of 1030', withTensors(both(), [B, ones(1030, 8)]), 'shape_mismatch', 'lm_head.lora_B'],
    ['two ranks', withTensors(both(), [B, ones(1024, 4)]), 'rank_mismatch', 'lm_head.lora_B'],
    [
      'another rank than the config',
      withTensors(both(), [A, ones(4, 1024)], [factorName(0, 'embed_tokens', 'B'), ones(256, 4)]),
      'rank_mismatch',
      'model.embed_tokens.lora_embedding_A',
    ],
    [
      'float64',
      withTensors(both(), [B, { dtype: 'F64', shape: [1024, 8], data: Buffer.alloc(1024 * 8 * 8) }]),
      'unsupported_dtype',
      B,
    ],
  ])('refuses %s', (_what, tensors, code, field) => {
    expect(refusalOf(() => bind(tensors, BOTH))).toMatchObject({ code, field });
  });

  it('refuses a copy of a base with another vocabulary, and says so', () => {
    const refusal = refusalOf(() => bind(withTensors(both(), copyOf(HEAD, 1030, 256)), BOTH));
    expect(refusal).toMatchObject({
      code: 'shape_mismatch',
      field: `${HEAD}.base_layer.weight`,
      expected: [1024, 256],
      actual: [1030, 256],
    });
    expect(refusal.message).toContain('the vocabulary was resized');
  });

  it.each([[[256, 1024]], [[1024, 255]], [[1024]], [[1024, 256, 1]]])(
    'refuses a copy of shape %s',
    (shape) => {
      expect(refusalOf(() => bind(withTensors(both(), copyOf(EMBEDDING, ...shape)), BOTH)).code).toBe(
        'shape_mismatch',
      );
    },
  );

  it('refuses a copy of a dtype that is not served, and two copies', () => {
    const quantized = { dtype: 'U8', shape: [1024, 256], data: Buffer.alloc(1024 * 256) };
    expect(
      refusalOf(() => bind(withTensors(both(), [`${HEAD}.base_layer.weight`, quantized]), BOTH)).code,
    ).toBe('unsupported_dtype');
    const twice = withTensors(both(), copyOf(HEAD, 1024, 256), copyOf('lm_head', 1024, 256));
    expect(refusalOf(() => bind(twice, BOTH))).toMatchObject({
      code: 'unexpected_tensor',
      field: 'lm_head.base_layer.weight',
    });
  });

  it('refuses a copy where the file does not adapt the module', () => {
    const tensors = withTensors(layerTensors(['lm_head']), copyOf(EMBEDDING, 1024, 256));
    expect(refusalOf(() => bind(tensors, { target_modules: ['lm_head'] }))).toMatchObject({
      code: 'unsupported_adapter_feature',
      field: `${EMBEDDING}.base_layer.weight`,
    });
  });

  it('refuses ties that only PEFT makes', () => {
    expect(refusalOf(() => bind(both(), { ...BOTH, ensure_weight_tying: true }))).toMatchObject({
      code: 'unsupported_adapter_feature',
      field: 'ensure_weight_tying',
    });
  });

  it('binds both, each for itself, where the base ties them', async () => {
    const { geometry, descriptor } = await loadModel(
      fileURLToPath(new URL('../../fixtures/qwen2', import.meta.url)),
    );
    expect(descriptor.lmHead).toBe(descriptor.embedTokens);
    const tensors = layerTensors(BOTH.target_modules, geometry);
    const tied = withTensors(tensors, copyOf(HEAD, 1024, 64), copyOf(EMBEDDING, 1024, 64));
    expect(bind(tied, BOTH, geometry).targetModules).toEqual(['embed_tokens', 'lm_head']);
    const head = layerTensors(['lm_head'], geometry);
    expect(bind(head, { target_modules: ['lm_head'] }, geometry).targetModules).toEqual(['lm_head']);
  });

  it('refuses them for a pod that does not report them', () => {
    const { embed_tokens: _, lm_head: __, ...modules } = PARROT_GEOMETRY.modules;
    expect(refusalOf(() => bind(both(), BOTH, { ...PARROT_GEOMETRY, modules }))).toMatchObject({
      code: 'unknown_module',
      actual: 'embed_tokens',
    });
  });
});
