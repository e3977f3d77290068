import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LookAroundPattern } from '../../../server/contract/format/look-around.ts';

const matches = (pattern: string, path: string) => new LookAroundPattern(pattern, () => {}).matches(path);

const Q = 'model.layers.0.self_attn.q_proj';
const VISUAL = 'visual.blocks.0.attn.q_proj';

describe('patterns that tools of training write', () => {
  const swift = '^(?!.*(?:lm_head|visual|aligner)).*(?:q_proj|k_proj|v_proj)$';
  const unsloth =
    '(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|up_proj).*?)|(?:\\bmodel\\.layers\\.[\\d]{1,}\\.(?:self_attn|mlp)\\.(?:(?:q_proj|up_proj)))(?<!visual)';
  it.each([
    [swift, Q, true],
    [swift, VISUAL, false],
    [swift, 'lm_head', false],
    [unsloth, Q, true],
    [unsloth, 'model.layers.0.self_attn.o_proj', false],
    ['(?P<stem>model\\..*)(?<=q_proj)\\Z', Q, true],
    ['\\A(?=model).*', VISUAL, false],
    ['[\\A(?P<x]*(?!y)', '(A?Px', true],
  ])('%s of %s: %s', (pattern, path, expected) => {
    expect(matches(pattern, path)).toBe(expected);
  });
});

describe('a pattern', () => {
  it('matches what the engine of JavaScript matches', () => {
    const atom = fc.constantFrom('a', 'b', '\\.', '.', '[ab]', '[^a]', '\\w', '\\d', '\\b', '^', '$', '(?:)');
    const { pattern } = fc.letrec<{ pattern: string; piece: string }>((tie) => ({
      piece: fc.oneof(
        { depthSize: 'small', withCrossShrink: true },
        atom,
        fc
          .tuple(
            atom.filter((text) => !['\\b', '^', '$'].includes(text)),
            fc.constantFrom('*', '+?', '?', '{2}', '{1,3}'),
          )
          .map((parts) => parts.join('')),
        fc
          .tuple(fc.constantFrom('(?=', '(?!', '(?<=', '(?<!', '(', '(?:'), tie('pattern'))
          .map(([open, inner]) => `${open}${inner})`),
        fc
          .tuple(tie('pattern'), fc.constantFrom('*', '+', '{0,2}'))
          .map(([inner, times]) => `(?:${inner})${times}`),
      ),
      pattern: fc
        .array(fc.array(tie('piece'), { maxLength: 4 }), { minLength: 1, maxLength: 2 })
        .map((branches) => branches.map((pieces) => pieces.join('')).join('|')),
    }));
    const path = fc.string({ unit: fc.constantFrom('a', 'b', '.', '1'), maxLength: 7 });
    fc.assert(
      fc.property(pattern, path, (text, of) => {
        expect(matches(text, of)).toBe(new RegExp(`^(?:${text})$`).test(of));
      }),
      { numRuns: 3000 },
    );
  });

  it.each(['(a)\\1', '(?i)a', '(', 'a**'])('%s is refused', (pattern) => {
    expect(() => matches(pattern, 'a')).toThrow(SyntaxError);
  });

  it('that would hang an engine which backtracks takes few steps', () => {
    let steps = 0;
    const pattern = new LookAroundPattern('(?=.)(?:(?:\\w+|\\.)+)+(?!z)!', (taken) => {
      steps += taken;
    });
    expect(pattern.matches(Q)).toBe(false);
    expect(steps).toBeLessThan(20_000);
  });
});
