import { describe, expect, it } from 'vitest';
import type { BoundAdapter, BoundModule } from '../../../server/contract/format/bind.ts';
import { inPlainWords, requireFusible, requireUniform } from '../../../server/engine/plain-adapter.ts';

const configOf = (more: object) =>
  Buffer.from(
    JSON.stringify({ peft_type: 'LORA', target_modules: ['q_proj'], r: 16, lora_alpha: 32, ...more }),
  );

function contentOf(more: object, module: Pick<BoundModule, 'rank' | 'scale'>) {
  const modules = [{ layer: 0, module: 'q_proj', ...module }];
  return { config: configOf(more), bound: { modules } as unknown as BoundAdapter };
}

describe('for an engine that takes all modules to be alike', () => {
  it.each([
    ['of the rank and scale that are said', {}, { rank: 16, scale: 2 }],
    ['of rsLoRA', { use_rslora: true }, { rank: 16, scale: 8 }],
  ])('modules %s are taken', (_, more, module) => {
    expect(() => requireUniform(contentOf(more, module))).not.toThrow();
  });

  it.each([
    ['alpha_pattern', { alpha_pattern: { q_proj: 16 } }, { rank: 16, scale: 1 }],
    ['rank_pattern', { rank_pattern: { q_proj: 8 } }, { rank: 8, scale: 4 }],
    ['rank_pattern', { rank_pattern: { q_proj: 8 }, alpha_pattern: { q_proj: 16 } }, { rank: 8, scale: 2 }],
  ])('what %s makes of one is refused', (field, more, module) => {
    expect(() => requireUniform(contentOf(more, module))).toThrow(expect.objectContaining({ field }));
  });

  it('rsLoRA becomes the alpha of the same scale, a pattern the names, and nothing else changes', () => {
    const content = contentOf(
      { use_rslora: true, target_modules: '.*q_proj', bias: 'none' },
      { rank: 16, scale: 8 },
    );
    expect(JSON.parse(inPlainWords(content).toString())).toEqual({
      ...JSON.parse(content.config.toString()),
      ...{ use_rslora: false, lora_alpha: 128, target_modules: ['q_proj'] },
    });
  });
});

it('a config in plain words is left as it is, byte for byte', () => {
  const content = contentOf({ target_modules: ['v_proj', 'q_proj'] }, { rank: 16, scale: 2 });
  expect(inPlainWords(content)).toBe(content.config);
});

describe('for an engine that computes projections as one', () => {
  const bound = (...layers: string[][]) => {
    const modules = layers.flatMap((names, layer) => names.map((module) => ({ layer, module })));
    return { bound: { modules } as unknown as BoundAdapter };
  };

  it.each([
    [['q_proj', 'v_proj']],
    [['gate_proj']],
    [['o_proj', 'down_proj']],
    [['q_proj', 'k_proj', 'v_proj']],
  ])('%j are taken', (names) => {
    expect(() => requireFusible(bound(names))).not.toThrow();
  });

  it.each([[['v_proj']], [['q_proj', 'k_proj']], [['q_proj']], [['up_proj', 'down_proj']]])(
    '%j of the second layer are refused',
    (names) => {
      const refused = expect.objectContaining({
        field: 'target_modules',
        message: expect.stringContaining('layers.1.'),
      });
      expect(() => requireFusible(bound(['q_proj', 'v_proj'], names))).toThrow(refused);
    },
  );
});
