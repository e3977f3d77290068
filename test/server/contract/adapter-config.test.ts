import { describe, expect, it } from 'vitest';
import { configFromHeaders, parseAdapterConfig } from '../../../server/contract/format/adapter-config.ts';
import { CONFIG } from '../../support/adapter-files.ts';
import { cpuMs } from '../../support/cpu-time.ts';
import { refusalOf } from './refusal.ts';

const parse = (changes: Record<string, unknown> = {}) =>
  parseAdapterConfig(Buffer.from(JSON.stringify({ ...CONFIG, ...changes })));
const PATHS = [0, 1, 2, 3].flatMap((layer) => [
  `model.layers.${layer}.self_attn.q_proj`,
  `model.layers.${layer}.self_attn.v_proj`,
  `model.layers.${layer}.mlp.up_proj`,
]);
const targeted = (changes: Record<string, unknown>) => PATHS.filter(parse(changes).targets);

describe('adapter_config.json', () => {
  it('honours rank, alpha and rsLoRA', () => {
    expect(parse({ r: 16, lora_alpha: 7.5, use_rslora: true })).toMatchObject({
      r: 16,
      loraAlpha: 7.5,
      useRslora: true,
    });
  });

  it('may begin with a byte order mark, which is no part of the digest', () => {
    const marked = Buffer.from(`\ufeff${JSON.stringify(CONFIG)}`);
    expect(parseAdapterConfig(marked).raw).toEqual(CONFIG);
  });

  it('keeps the parsed JSON for the digest and the base model as a note', () => {
    const config = parse({ base_model_name_or_path: 'org/base' });
    expect(config.raw).toEqual({ ...CONFIG, base_model_name_or_path: 'org/base' });
    expect(config.baseModel).toBe('org/base');
  });

  it.each([
    ['peft_type', 'lora'],
    ['peft_version', '0.21.2'],
    ['megatron_core', 'megatron.core'],
    ['qalora_group_size', 16],
    ['loftq_config', { loftq_bits: 4 }],
    ['eva_config', { rho: 2 }],
    ['velora_config', { rank: 4 }],
    ['runtime_config', { ephemeral_gpu_offload: true }],
    ['init_lora_weights', 'eva'],
    ['init_lora_weights', null],
    ['init_lora_weights', false],
    ['a_key_of_tomorrow', false],
    ['another', []],
    ['a_third', {}],
    ['bias', null],
  ])('takes %s: %j', (key, value) => {
    expect(parse({ [key]: value }).r).toBe(8);
  });

  it.each([
    ['peft_type', 'ADALORA'],
    ['task_type', 'TOKEN_CLS'],
    ['bias', 'lora_only'],
    ['init_lora_weights', 'pissa_niter_4'],
    ['init_lora_weights', 'olora'],
    ['init_lora_weights', 'loftq'],
    ['init_lora_weights', 'corda'],
    ['init_lora_weights', 'lora_ga'],
    ['use_dora', true],
    ['use_qalora', true],
    ['use_bdlora', { target_modules: [] }],
    ['arrow_config', { top_k: 2 }],
    ['monteclora_config', { samples: 2 }],
    ['kasa_config', { beta: 1 }],
    ['ensure_weight_tying', true],
    ['megatron_config', { size: 1 }],
    ['a_key_of_tomorrow', 0],
    ['a_key_of_tomorrow', 'on'],
  ])('refuses %s: %j by its name', (key, value) => {
    expect(refusalOf(() => parse({ [key]: value }))).toMatchObject({
      code: 'unsupported_adapter_feature',
      field: key,
    });
  });

  it.each([
    ['r', true],
    ['r', -8],
    ['lora_alpha', '16'],
    ['use_rslora', 'yes'],
    ['rank_pattern', [8]],
    ['alpha_pattern', { q_proj: '8' }],
    ['target_modules', null],
    ['target_modules', [1]],
    ['target_modules', ''],
    ['exclude_modules', 5],
    ['layers_to_transform', ['0']],
    ['layers_pattern', 5],
    ['peft_type', null],
  ])('refuses %s: %j as malformed', (key, value) => {
    const refusal = refusalOf(() => parse({ [key]: value }));
    expect(refusal.code).toBe('malformed_config');
    expect(refusal.field).toContain(key);
  });

  it('refuses equal keys, which JSON.parse would resolve silently', () => {
    const text = JSON.stringify(CONFIG).replace('"r":8', '"r":8,"r":4');
    expect(refusalOf(() => parseAdapterConfig(Buffer.from(text))).message).toContain('"r" twice');
  });
});

describe('target modules', () => {
  it('takes names as suffixes of whole path parts', () => {
    expect(targeted({ target_modules: ['q_proj'] })).toHaveLength(4);
    expect(targeted({ target_modules: ['proj'] })).toHaveLength(0);
    expect(targeted({ target_modules: ['layers.1.self_attn.q_proj'] })).toEqual([
      'model.layers.1.self_attn.q_proj',
    ]);
  });

  it('takes a text as a pattern over the whole path', () => {
    expect(targeted({ target_modules: '.*\\.[12]\\..*(q|v)_proj' })).toHaveLength(4);
    expect(targeted({ target_modules: 'q_proj' })).toHaveLength(0);
  });

  it('takes all-linear as every layer but the output', () => {
    const { targets } = parse({ target_modules: 'all-linear' });
    expect(PATHS.filter(targets)).toHaveLength(12);
    expect(targets('lm_head')).toBe(false);
    expect(targets('model.embed_tokens')).toBe(false);
  });

  it('excludes by name and by pattern, before all else', () => {
    expect(targeted({ exclude_modules: ['v_proj'] })).toHaveLength(4);
    expect(targeted({ exclude_modules: '.*layers\\.0\\..*' })).toHaveLength(6);
  });

  it('chooses layers', () => {
    expect(targeted({ layers_to_transform: [0, 3] })).toHaveLength(4);
    expect(targeted({ layers_to_transform: 2 })).toHaveLength(2);
    expect(targeted({ layers_to_transform: [1], layers_pattern: 'layers' })).toHaveLength(2);
    expect(targeted({ layers_to_transform: [1], layers_pattern: ['h', 'layers'] })).toHaveLength(2);
    expect(targeted({ layers_to_transform: [1], layers_pattern: 'blocks' })).toHaveLength(0);
  });

  it('refuses combinations that PEFT refuses', () => {
    expect(refusalOf(() => parse({ target_modules: '.*', layers_to_transform: [0] })).field).toBe(
      'layers_to_transform',
    );
    expect(refusalOf(() => parse({ layers_pattern: 'layers' })).field).toBe('layers_pattern');
  });
});

describe('patterns', () => {
  const rankOf = (patterns: Record<string, number>, path: string) =>
    parse({ rank_pattern: patterns }).rankPattern.find(({ matches }) => matches(path))?.value;

  it.each([
    ['q_proj', 4],
    ['layers.1.self_attn.q_proj', 4],
    ['model.layers.1.self_attn.q_proj', 4],
    ['^model.layers.1.self_attn.q_proj$', 4],
    ['layers\\.[0-1]\\.self_attn\\.(q|k)_proj', 4],
    ['layers.1.self.attn.q.proj', 4],
    ['proj', undefined],
    ['1.self_attn', undefined],
    ['attn.q_proj', undefined],
  ])('%s on layer 1 q_proj gives %s', (key, rank) => {
    expect(rankOf({ [key]: 4 }, 'model.layers.1.self_attn.q_proj')).toBe(rank);
  });

  it('takes the first key that matches', () => {
    const patterns = { 'layers.1.self_attn.q_proj': 2, q_proj: 4 };
    expect(rankOf(patterns, 'model.layers.1.self_attn.q_proj')).toBe(2);
    expect(rankOf(patterns, 'model.layers.0.self_attn.q_proj')).toBe(4);
  });

  it.each([
    ['a back-reference', '(q)\\1'],
    ['an open group', 'layers.(0'],
  ])('refuses %s', (_what, key) => {
    expect(refusalOf(() => parse({ rank_pattern: { [key]: 4 } }))).toMatchObject({
      code: 'malformed_config',
      field: 'rank_pattern',
    });
  });

  it('refuses look-around that takes too many steps, within two seconds of processor time', () => {
    const { targets } = parse({ target_modules: `(?=.)(?:${'(?=(?:.*.*)*)'.repeat(60)}.)*!` });
    const decide = () => {
      for (let layer = 0; layer < 80; layer++) targets(`model.layers.${layer}.self_attn.q_proj`);
    };
    expect(cpuMs(() => expect(refusalOf(decide).code).toBe('malformed_config'))).toBeLessThan(2000);
  });

  it.each([
    ['one long pattern', { target_modules: `(${'q'.repeat(2000)})` }],
    [
      'many patterns',
      {
        alpha_pattern: Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`(layers\\.${i}\\..*)`, 1])),
      },
    ],
    ['many small repeats', { target_modules: 'x{0,99}'.repeat(30) }],
    ['large repeats', { target_modules: '(q{0,500})+' }],
    ['repeats of repeats', { target_modules: '((((a{9}){9}){9}){9})' }],
  ])('refuses %s within two seconds of processor time', (_what, changes) => {
    const refuse = () => expect(refusalOf(() => parse(changes)).code).toBe('malformed_config');
    expect(cpuMs(refuse)).toBeLessThan(2000);
  });

  it('matches a pattern that would backtrack for ever elsewhere within two seconds of processor time', () => {
    const match = () => expect(targeted({ target_modules: '(([a-z._0-9]+)*)+\\$never' })).toEqual([]);
    expect(cpuMs(match)).toBeLessThan(2000);
  });

  it('takes one plain key per module of a large model', () => {
    const keys = Array.from({ length: 880 }, (_, i) => [`layers.${i}.self_attn.q_proj`, i + 1]);
    expect(rankOf(Object.fromEntries(keys), 'model.layers.879.self_attn.q_proj')).toBe(880);
  });
});

describe('where the config comes from', () => {
  const text = JSON.stringify(CONFIG);
  const header = Buffer.from(text).toString('base64url');

  it('prefers the header to the metadata, and knows when there is neither', () => {
    expect(configFromHeaders(header, { adapter_config: '{}' })?.toString()).toBe(text);
    expect(configFromHeaders(undefined, { adapter_config: text })?.toString()).toBe(text);
    expect(configFromHeaders(undefined, { format: 'pt' })).toBeNull();
  });

  it('takes padding and refuses what is not base64url', () => {
    expect(configFromHeaders(`${Buffer.from('{"a":1}').toString('base64url')}==`, {})?.toString()).toBe(
      '{"a":1}',
    );
    for (const wrong of ['', '{"r": 8}', 'abc+', 'abcde']) {
      expect(refusalOf(() => configFromHeaders(wrong, {})).field).toBe('x-lora-config');
    }
  });
});
