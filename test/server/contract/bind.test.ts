import { describe, expect, it } from 'vitest';
import { headerLength } from '../../../server/contract/format/safetensors.ts';
import { f32, factorName, goodTensors, packSafetensors, type Tensors } from '../../support/adapter-files.ts';
import { PARROT_GEOMETRY } from '../../support/parrot-geometry.ts';
import { bind, bindFiles, fixtureFiles, layerTensors } from './binding.ts';
import { refusalOf } from './refusal.ts';

/** The right tensors under other names. */
function renamed(rename: (name: string) => string): Tensors {
  return new Map([...goodTensors()].map(([name, tensor]) => [rename(name), tensor]));
}

describe('binding an adapter to the parrot model', () => {
  it.each([
    ['sql', { rank: 8, ranks: [8], modules: 28, scale: 16 / 8, dtype: 'F32' }],
    ['pirate', { rank: 16, ranks: [16], modules: 20, scale: 16 / Math.sqrt(16), dtype: 'F32' }],
    ['json', { rank: 4, ranks: [4], modules: 28, scale: 8 / 4, dtype: 'BF16' }],
    ['rank-1-f16', { rank: 1, ranks: [1], modules: 28, scale: 2, dtype: 'F16' }],
    ['rank-64-bf16', { rank: 64, ranks: [64], modules: 28, scale: 32 / Math.sqrt(64), dtype: 'BF16' }],
    ['rank-24', { rank: 24, ranks: [24], modules: 8, scale: 12 / 24, dtype: 'F32' }],
    ['some-layers', { rank: 16, ranks: [16], modules: 4, scale: 32 / 16, dtype: 'F32' }],
    ['regex-targets', { rank: 8, ranks: [8], modules: 6, scale: 16 / 8, dtype: 'F32' }],
  ])('binds %s', (name, { rank, ranks, modules, scale, dtype }) => {
    const bound = bindFiles(fixtureFiles(name));
    expect(bound).toMatchObject({ rank, ranks, dtypes: [dtype], warnings: [] });
    expect(bound.modules).toHaveLength(modules);
    expect(new Set(bound.modules.map((module) => module.scale))).toEqual(new Set([scale]));
  });

  it('takes rank and alpha of each module by the first pattern', () => {
    const bound = bindFiles(fixtureFiles('rank-pattern'));
    const of = (layer: number, module: string) =>
      bound.modules.find((m) => m.layer === layer && m.module === module);
    expect(of(0, 'q_proj')).toMatchObject({ rank: 4, scale: 16 / 4 });
    expect(of(1, 'down_proj')).toMatchObject({ rank: 24, scale: 6 / 24 });
    expect(of(2, 'v_proj')).toMatchObject({ rank: 1, scale: 8 / 1 });
    expect(of(1, 'v_proj')).toMatchObject({ rank: 8, scale: 8 / 8 });
  });

  it('points at the factors in the file', () => {
    const tensors = layerTensors(['v_proj']);
    const bound = bind(tensors, { target_modules: ['layers.0.self_attn.v_proj'] });
    const start = headerLength(packSafetensors(tensors));
    const a = { offset: start, dtype: 'F32' };
    const b = { offset: start + 8 * 256 * 4, dtype: 'F32' };
    expect(bound.modules).toEqual([{ layer: 0, module: 'v_proj', rank: 8, scale: 2, a, b }]);
  });

  it.each([
    ['the adapter name', (name: string) => name.replace('.weight', '.default.weight')],
    ['no PEFT prefix', (name: string) => name.replace('base_model.model.', '')],
    ['a doubled model prefix', (name: string) => name.replace('model.layers', 'model.model.layers')],
    ['a DDP prefix', (name: string) => `module.${name}`],
    ['a compile prefix', (name: string) => `_orig_mod.${name}`],
    [
      'FSDP wrappers',
      (name: string) =>
        name
          .replace('.layers', '._fsdp_wrapped_module.layers')
          .replace('.self_attn', '._fsdp_wrapped_module.self_attn'),
    ],
    [
      'checkpoint wrappers',
      (name: string) => name.replace('.self_attn', '._checkpoint_wrapped_module.self_attn'),
    ],
  ])('takes names with %s', (_what, rename) => {
    expect(bind(renamed(rename)).modules).toHaveLength(8);
  });

  it.each([
    ['another parent', 'unexpected_tensor', (name: string) => name.replace('self_attn', 'mlp')],
    ['no parent', 'unexpected_tensor', (name: string) => name.replace('self_attn.', '')],
    [
      'a prefix of another model',
      'unexpected_tensor',
      (name: string) => name.replace('base_model.model', 'language_model'),
    ],
    [
      'a bias of lora_B',
      'unsupported_adapter_feature',
      (name: string) => name.replace('lora_B.weight', 'lora_B.bias'),
    ],
    [
      'an embedding factor',
      'unexpected_tensor',
      (name: string) => name.replace('lora_A.weight', 'lora_embedding_A'),
    ],
    [
      'the head in a layer',
      'unexpected_tensor',
      (name: string) => name.replace(/self_attn.q_proj/, 'lm_head'),
    ],
    [
      'saved modules',
      'unsupported_adapter_feature',
      (name: string) => name.replace('lora_A.weight', 'modules_to_save.default.weight'),
    ],
    [
      'base weights',
      'unsupported_adapter_feature',
      (name: string) => name.replace('lora_A.weight', 'base_layer.weight'),
    ],
    [
      'a layer of 2^53',
      'unexpected_tensor',
      (name: string) => name.replace('layers.0', 'layers.9007199254740993'),
    ],
  ])('refuses names with %s', (_what, code, rename) => {
    const refusal = refusalOf(() => bind(renamed(rename)));
    expect(refusal.code).toBe(code);
    expect(refusal.field).toMatch(/self_attn|mlp|layers|embed/);
  });

  it('refuses two tensors that mean one factor', () => {
    const tensors = goodTensors();
    const name = factorName(0, 'q_proj', 'A');
    tensors.set(
      name.replace('.weight', '.default.weight'),
      f32([8, 256], () => 1),
    );
    expect(refusalOf(() => bind(tensors))).toMatchObject({
      code: 'unexpected_tensor',
      field: name.replace('.weight', '.default.weight'),
    });
  });

  it('refuses an adapter of another base: the first shape that differs', () => {
    const geometry = {
      ...PARROT_GEOMETRY,
      modules: { ...PARROT_GEOMETRY.modules, q_proj: { in: 4096, out: 4096 } },
    };
    expect(refusalOf(() => bind(goodTensors(), {}, geometry))).toMatchObject({
      code: 'shape_mismatch',
      field: 'model.layers.0.self_attn.q_proj.lora_A',
      expected: [8, 4096],
      actual: [8, 256],
    });
  });

  it('refuses modules that layers_to_transform leaves out', () => {
    expect(refusalOf(() => bind(goodTensors(), { layers_to_transform: [0] })).code).toBe('unexpected_tensor');
    expect(refusalOf(() => bind(layerTensors(['q_proj', 'v_proj']))).code).toBe('missing_tensor');
    expect(bind(layerTensors(['q_proj', 'v_proj']), { layers_to_transform: [0] }).layers).toEqual([0]);
  });

  it('warns of what is odd', () => {
    const changes = { target_modules: ['q_proj', 'v_proj', 'query_key_value'], lora_alpha: -16 };
    expect(bind(goodTensors(), changes).warnings).toEqual([
      'target_modules names "query_key_value", which adapts nothing in this model',
      'lora_alpha or alpha_pattern is zero or negative',
    ]);
  });

  it('takes mixed dtypes, factor by factor', () => {
    const tensors = layerTensors(['q_proj', 'v_proj']);
    tensors.set(factorName(0, 'q_proj', 'A'), {
      dtype: 'BF16',
      shape: [8, 256],
      data: Buffer.alloc(8 * 256 * 2),
    });
    const { modules, dtypes } = bind(tensors, { layers_to_transform: [0] });
    expect(dtypes).toEqual(['BF16', 'F32']);
    expect(modules[0]).toMatchObject({ a: { dtype: 'BF16' }, b: { dtype: 'F32' } });
  });
});
