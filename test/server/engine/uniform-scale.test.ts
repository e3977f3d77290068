import { describe, expect, it } from 'vitest';
import type { BoundAdapter, BoundModule } from '../../../server/contract/format/bind.ts';
import { requireUniform, withoutRslora } from '../../../server/engine/uniform-scale.ts';

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

  it('rsLoRA becomes the alpha of the same scale, and nothing else changes', () => {
    const config = configOf({ use_rslora: true, bias: 'none' });
    const plain = JSON.parse(withoutRslora(config).toString());
    expect(plain).toEqual({ ...JSON.parse(config.toString()), use_rslora: false, lora_alpha: 128 });
    expect(withoutRslora(configOf({}))).toEqual(configOf({}));
  });
});
