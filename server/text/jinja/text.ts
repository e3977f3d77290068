import { TemplateError } from './values.ts';

/** What Python takes for white space, which is not quite what JavaScript does. */
const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
const SPACE_CHARACTER = new RegExp(`^[${SPACE}]$`);
const SPACES = new RegExp(`[${SPACE}]+`);
// biome-ignore lint/suspicious/noControlCharactersInRegex: Python ends a line at separators of records too.
const NEWLINE = /\r\n|[\n-\r\x1c-\x1e\x85\u2028\u2029]/g;

/** Without the characters of `characters` at its ends; null means white space. */
export function strip(text: string, characters: string | null, ends: 'both' | 'left' | 'right'): string {
  const set = characters === null ? null : new Set(characters);
  const goes = (character: string) => (set === null ? SPACE_CHARACTER.test(character) : set.has(character));
  let [start, end] = [0, text.length];
  for (let first = characterAt(text, start); ends !== 'right' && start < end && goes(first); ) {
    start += first.length;
    first = characterAt(text, start);
  }
  for (let last = characterBefore(text, end); ends !== 'left' && start < end && goes(last); ) {
    end -= last.length;
    last = characterBefore(text, end);
  }
  return text.slice(start, end);
}

function characterAt(text: string, index: number): string {
  const code = text.codePointAt(index);
  return code === undefined ? '' : String.fromCodePoint(code);
}

function characterBefore(text: string, index: number): string {
  const pair = characterAt(text, index - 2);
  return pair.length === 2 ? pair : text.slice(Math.max(index - 1, 0), index);
}

/** `str.split` and `str.rsplit`; a negative `max` is no bound. */
export function split(text: string, separator: string | null, max: number, from: 'left' | 'right'): string[] {
  if (separator === '') throw new TemplateError('empty separator');
  if (separator === null) return splitAtSpaces(text, max, from);
  const parts = text.split(separator);
  if (max < 0 || parts.length <= max + 1) return parts;
  return from === 'left'
    ? [...parts.slice(0, max), parts.slice(max).join(separator)]
    : [parts.slice(0, parts.length - max).join(separator), ...parts.slice(parts.length - max)];
}

function splitAtSpaces(text: string, max: number, from: 'left' | 'right'): string[] {
  const words = text.split(SPACES).filter((word) => word !== '');
  if (max < 0 || words.length <= max) return words;
  const taken = from === 'left' ? words.slice(0, max) : words.slice(words.length - max);
  let rest = strip(text, null, from);
  for (const word of from === 'left' ? taken : taken.toReversed()) {
    rest = from === 'left' ? rest.slice(word.length) : rest.slice(0, rest.length - word.length);
    rest = strip(rest, null, from);
  }
  if (strip(rest, null, 'both') === '') return taken;
  return from === 'left' ? [...taken, rest] : [rest, ...taken];
}

export function splitLines(text: string, keepEnds: boolean): string[] {
  const lines: string[] = [];
  let start = 0;
  for (const { 0: newline, index } of text.matchAll(NEWLINE)) {
    lines.push(text.slice(start, keepEnds ? index + newline.length : index));
    start = index + newline.length;
  }
  return start < text.length ? [...lines, text.slice(start)] : lines;
}

export function replace(text: string, old: string, by: string, max: number): string {
  if (max < 0) return text.replaceAll(old, () => by);
  let left = max;
  return text.replaceAll(old, () => {
    left -= 1;
    return left >= 0 ? by : old;
  });
}

export function capitalize(text: string): string {
  const [first = '', ...rest] = text;
  return first.toUpperCase() + rest.join('').toLowerCase();
}

/** `str.title`: every letter after what is no letter. */
export function title(text: string): string {
  return text.replace(/\p{L}+/gu, capitalize);
}

/** Jinja's own filter: words are parted by spaces, hyphens and opening brackets only. */
export function titleWords(text: string): string {
  return text.replace(/[^-\s({[<]+/g, capitalize);
}

/** Where `needle` is, in characters, or -1. */
export function find(text: string, needle: string, from: 'left' | 'right'): number {
  const index = from === 'left' ? text.indexOf(needle) : text.lastIndexOf(needle);
  return index < 0 ? -1 : [...text.slice(0, index)].length;
}

export function indent(text: string, by: string, first: boolean, blank: boolean): string {
  const [head = '', ...rest] = splitLines(`${text}\n`, false);
  const lines = rest.map((line) => (blank || line !== '' ? by + line : line));
  return [(first ? by : '') + head, ...lines].join('\n');
}
