import { describe, expect, it } from 'vitest';
import { brief, parseStrictJson, StrictJsonError } from '../../../server/contract/strict-json.ts';

const parse = (text: string, depth = 8) => parseStrictJson(Buffer.from(text), { depth });

function refusal(act: () => unknown): StrictJsonError {
  try {
    act();
  } catch (error) {
    if (error instanceof StrictJsonError) return error;
  }
  throw new Error('Expected a StrictJsonError');
}

describe('strict JSON', () => {
  it.each([
    '{"a": [1, -2.5e3, true, false, null], "b": {"c": "d\\n\\u00e9\\ud83d\\ude00"}}',
    ' [ ] ',
    '{}',
    '"plain"',
    '0',
    '-0.5',
    '9007199254740991',
    '{"": "é😀"}',
  ])('reads %s as JSON.parse does', (text) => {
    expect(JSON.stringify(parse(text))).toBe(JSON.stringify(JSON.parse(text)));
  });

  it.each([
    ['an empty text', ''],
    ['a key without quotes', '{r: 8}'],
    ['single quotes', "{'r': 8}"],
    ['a trailing comma', '{"r": 8,}'],
    ['a trailing comma in an array', '[1,]'],
    ['text after the value', '{"r": 8} x'],
    ['a second value', '{}{}'],
    ['NaN', '{"r": NaN}'],
    ['Infinity', '[Infinity]'],
    ['a number beyond doubles', '[1e999]'],
    ['a number that rounds', '[9007199254740993]'],
    ['a leading zero', '[08]'],
    ['a plus sign', '[+8]'],
    ['a bare fraction', '[.5]'],
    ['a comment', '{} // no'],
    ['an open string', '{"r'],
    ['an open object', '{"r": 8'],
    ['a raw control character', '"a\nb"'],
    ['an unknown escape', '"\\x41"'],
    ['a short escape', '"\\u12"'],
    ['a lone surrogate', '"\\ud800"'],
    ['a byte order mark', '\ufeff{}'],
  ])('refuses %s', (_what, text) => {
    expect(() => parse(text)).toThrow(StrictJsonError);
  });

  it('refuses the second of two equal keys, naming it and where it is', () => {
    const error = refusal(() => parse('{"a": {"r": 8, "\\u0072": 9}}'));
    expect(error.message).toContain('"r" twice');
    expect(error.path).toEqual(['a']);
    expect(error.position).toBe(15);
  });

  it('refuses bytes that are not UTF-8', () => {
    expect(() => parseStrictJson(Buffer.from([0x22, 0xff, 0x22]), { depth: 2 })).toThrow(/UTF-8/);
  });

  it('refuses nesting beyond the limit, however deep', () => {
    expect(parse('[[1]]', 2)).toEqual([[1]]);
    expect(() => parse('[[[1]]]', 2)).toThrow(/2 levels/);
    expect(() => parse('['.repeat(1_000_000), 64)).toThrow(/64 levels/);
  });

  it('takes __proto__ and constructor as keys like any other', () => {
    const value = parse('{"__proto__": {"polluted": 1}, "constructor": 2}') as Record<string, unknown>;
    expect(Object.keys(value)).toEqual(['__proto__', 'constructor']);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });

  it.each(['4e0', '8.0', '-1', '-0', '1e2'])(
    'admits only plain digits where integers are asked for: %s',
    (literal) => {
      const read = () => parseStrictJson(Buffer.from(`[${literal}]`), { depth: 1, numbers: 'integers' });
      expect(read).toThrow(StrictJsonError);
    },
  );

  it('keeps a stranger’s long value out of errors', () => {
    expect(brief([8, 256])).toEqual([8, 256]);
    expect(String(brief('x'.repeat(10_000))).length).toBeLessThan(200);
  });
});
