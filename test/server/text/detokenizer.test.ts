import { resolve } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StopStrings } from '../../../server/text/stop-strings.ts';
import { Tokenizer } from '../../../server/text/tokenizer.ts';

const tokenizer = await Tokenizer.load(resolve(import.meta.dirname, '../../fixtures/parrot'));

describe('detokenizer', () => {
  it('never gives out half a character', () => {
    const text = 'é🦜é東👩‍🚀';
    const detokenizer = tokenizer.detokenizer();
    const pieces = tokenizer.encode(text, { addSpecial: false }).map((id) => detokenizer.push(id));
    expect(pieces.join('')).not.toContain('\uFFFD');
    expect(pieces.join('') + detokenizer.end()).toBe(text);
    expect(pieces.length).toBeGreaterThan(text.length);
  });

  it('ends half a character as U+FFFD', () => {
    const [first] = tokenizer.encode('🦜', { addSpecial: false });
    const detokenizer = tokenizer.detokenizer();
    expect(detokenizer.push(first as number)).toBe('');
    expect(detokenizer.end()).toBe('\uFFFD');
  });

  it('breaks half a character at a special token that is shown', () => {
    const [first] = tokenizer.encode('🦜', { addSpecial: false });
    expect(tokenizer.decode([first as number, 4], { skipSpecial: false })).toBe('\uFFFD<|eot_id|>');
  });
});

/** What StopStrings must give, seen on the whole text: everything before the first stop string to be completed. */
function cutAtFirstCompleted(text: string, stops: string[]): { text: string; stop: string | null } {
  for (let end = 1; end <= text.length; end += 1) {
    const ending = stops
      .filter((stop) => text.slice(0, end).endsWith(stop))
      .sort((a, b) => b.length - a.length)[0];
    if (ending !== undefined) return { text: text.slice(0, end - ending.length), stop: ending };
  }
  return { text, stop: null };
}

function run(chunks: Iterable<string>, stops: string[]): { text: string; stop: string | null } {
  const matcher = new StopStrings(stops);
  let text = '';
  for (const chunk of chunks) {
    const outcome = matcher.push(chunk);
    text += outcome.text;
    if (outcome.stop !== null) return { text, stop: outcome.stop };
  }
  return { text: text + matcher.end(), stop: null };
}

describe('stop strings', () => {
  it('are found across chunks', () => {
    expect(run(['one E', 'N', 'D two'], ['END'])).toEqual({ text: 'one ', stop: 'END' });
  });

  it('hold back no more than what may become one', () => {
    const matcher = new StopStrings(['END']);
    expect(matcher.push('abE')).toEqual({ text: 'ab', stop: null });
    expect(matcher.push('x')).toEqual({ text: 'Ex', stop: null });
  });

  it('are kept in the text where asked', () => {
    const matcher = new StopStrings(['\n'], { include: true });
    expect(matcher.push('a\nb')).toEqual({ text: 'a\n', stop: '\n' });
  });

  it('agree with a search of the whole text, letter by letter', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 30 });
    const stops = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 4 }), {
      maxLength: 4,
    });
    fc.assert(
      fc.property(letters, stops, (text, wanted) => {
        expect(run(text, wanted)).toEqual(cutAtFirstCompleted(text, wanted));
      }),
    );
  });
});
