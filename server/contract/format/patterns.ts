import { RE2JS } from 're2js';
import { expected, type LorikeetError } from '../errors.ts';
import { LookAroundPattern } from './look-around.ts';

const PATTERN_CHARACTERS_MAX = 1024;
const PATTERNS_CHARACTERS_MAX = 4096;
const INSTRUCTIONS_MAX = 2048;
const KEYS_MAX = 4096;
/** Of all patterns with look-around over all paths: some tenths of a second. */
const STEPS_MAX = 4_000_000;

/** A key made only of these needs no engine: its dots match any character, everything else itself. */
const PLAIN_KEY = /^[A-Za-z0-9_.]+$/;
const LOOK_AROUND = /\(\?<?[=!]/;
const LARGE_REPEAT = /\{\d*,?\d{3,}\}/;

export interface KeyPattern {
  key: string;
  value: number;
  matches(path: string): boolean;
}

/** Whether a path matches, in a bounded time. */
interface Matcher {
  matches(path: string): boolean;
  lookingAt(path: string): boolean;
}

/**
 * Compiles the regular expressions of one adapter_config.json. Matching takes linear time (RE2), or with look-around a
 * bounded number of steps, and the sum of their sizes is bounded, so that no config can hold the event loop.
 */
export class PatternCompiler {
  #characters = 0;
  #instructions = 0;
  #steps = 0;

  /** Python's `re.fullmatch(pattern, path)`. */
  fullMatch(field: string, pattern: string): (path: string) => boolean {
    const matcher = this.#matcher(field, pattern, pattern);
    return (path) => matcher.matches(path);
  }

  /** Python's `re.match(pattern, path)`, with the first group as a number, or null. */
  leadingNumber(field: string, pattern: string, source: string): (path: string) => number | null {
    const regex = this.#compile(field, pattern, source);
    return (path) => {
      const matcher = regex.matcher(path);
      return matcher.lookingAt() ? Number(matcher.group(1)) : null;
    };
  }

  /** PEFT's `rank_pattern` and `alpha_pattern`: `re.match(rf"(.*\.)?({key})$", path)`, the first key that matches wins. */
  keys(field: string, patterns: [string, number][]): KeyPattern[] {
    if (patterns.length > KEYS_MAX) {
      throw expected('malformed_config', field, `at most ${KEYS_MAX} keys`, patterns.length);
    }
    return patterns.map(([key, value]) => {
      if (PLAIN_KEY.test(key)) return { key, value, matches: (path) => endsWithKey(path, key) };
      const matcher = this.#matcher(field, `(.*\\.)?(${key})$`, key);
      return { key, value, matches: (path) => matcher.lookingAt(path) };
    });
  }

  #matcher(field: string, pattern: string, source: string): Matcher {
    if (LOOK_AROUND.test(source)) return this.#lookAround(field, pattern, source);
    const regex = this.#compile(field, pattern, source);
    return {
      matches: (path) => regex.matches(path),
      lookingAt: (path) => regex.matcher(path).lookingAt(),
    };
  }

  #lookAround(field: string, pattern: string, source: string): Matcher {
    this.#requireSmall(field, source);
    try {
      return new LookAroundPattern(pattern, (steps) => {
        this.#steps += steps;
        if (this.#steps > STEPS_MAX) throw this.#tooLarge(field, source);
      });
    } catch {
      throw expected('malformed_config', field, 'a regular expression without back-references', source);
    }
  }

  #requireSmall(field: string, source: string): void {
    this.#characters += source.length;
    if (
      source.length > PATTERN_CHARACTERS_MAX ||
      this.#characters > PATTERNS_CHARACTERS_MAX ||
      LARGE_REPEAT.test(source)
    ) {
      throw this.#tooLarge(field, source);
    }
  }

  #compile(field: string, pattern: string, source: string): RE2JS {
    this.#requireSmall(field, source);
    let regex: RE2JS;
    try {
      regex = RE2JS.compile(pattern);
    } catch {
      const want = 'a regular expression of the RE2 kind (no back-references)';
      throw expected('malformed_config', field, want, source);
    }
    this.#instructions += regex.programSize();
    if (this.#instructions > INSTRUCTIONS_MAX) throw this.#tooLarge(field, source);
    return regex;
  }

  #tooLarge(field: string, source: string): LorikeetError {
    const want = `smaller patterns (at most ${PATTERN_CHARACTERS_MAX} characters each, ${PATTERNS_CHARACTERS_MAX} characters and ${INSTRUCTIONS_MAX} instructions together, repeats below 100)`;
    return expected('malformed_config', field, want, source);
  }
}

/** True where `path` equals `key` or ends with `.key`; a dot of the key matches any character. */
function endsWithKey(path: string, key: string): boolean {
  const start = path.length - key.length;
  if (start < 0 || (start > 0 && path[start - 1] !== '.')) return false;
  for (let i = 0; i < key.length; i++) {
    if (key[i] !== '.' && key[i] !== path[start + i]) return false;
  }
  return true;
}
