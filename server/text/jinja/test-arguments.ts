import type { tokenize } from '@huggingface/jinja';

type Token = ReturnType<typeof tokenize>[number];

/** The tests that compare with something: `x is in [1, 2]`, `x is divisibleby(3)`. */
const COMPARING = new Set([
  ...['divisibleby', 'eq', 'equalto', 'ge', 'greaterthan', 'gt', 'in'],
  ...['le', 'lessthan', 'lt', 'ne', 'sameas'],
]);
const CLOSES: Record<string, string> = {
  OpenParen: 'CloseParen',
  OpenSquareBracket: 'CloseSquareBracket',
  OpenCurlyBracket: 'CloseCurlyBracket',
};

/** What a comparing test is called as a filter, which no template can write itself. */
export function asFilter(test: string, isNegated: boolean): string {
  return isNegated ? `is not ${test}` : `is ${test}`;
}

/** The library parses no arguments of tests, so they become arguments of filters: `x | is in([1, 2])`. */
export function withTestArguments(tokens: Token[]): Token[] {
  const written: Token[] = [];
  for (let at = 0; at < tokens.length; at += 1) {
    const isNegated = isWord(tokens[at + 1], 'not');
    const nameAt = at + (isNegated ? 2 : 1);
    const name = tokens[nameAt];
    if (!isWord(tokens[at], 'is') || name?.type !== 'Identifier' || !COMPARING.has(name.value)) {
      written.push(tokens[at] as Token);
      continue;
    }
    const end = endOfArgument(tokens, nameAt + 1);
    const argument = withTestArguments(tokens.slice(nameAt + 1, end));
    const isEnclosed = tokens[nameAt + 1]?.type === 'OpenParen';
    written.push(token('|', 'Pipe'), token(asFilter(name.value, isNegated), 'Identifier'));
    written.push(
      ...(isEnclosed ? argument : [token('(', 'OpenParen'), ...argument, token(')', 'CloseParen')]),
    );
    at = end - 1;
  }
  return written;
}

/** After a value and the attributes, items and calls that follow it. */
function endOfArgument(tokens: Token[], start: number): number {
  const isEnclosed = tokens[start]?.type === 'OpenParen';
  let at = afterOne(tokens, start);
  while (!isEnclosed && ['Dot', 'OpenSquareBracket', 'OpenParen'].includes(tokens[at]?.type ?? '')) {
    at = tokens[at]?.type === 'Dot' ? at + 2 : afterOne(tokens, at);
  }
  return at;
}

/** After one token, or after the bracket that closes it. */
function afterOne(tokens: Token[], start: number): number {
  let depth = 0;
  for (let at = start; at < tokens.length; at += 1) {
    const type = tokens[at]?.type ?? '';
    if (type in CLOSES) depth += 1;
    if (Object.values(CLOSES).includes(type)) depth -= 1;
    if (depth <= 0) return at + 1;
  }
  return tokens.length;
}

function isWord(candidate: Token | undefined, word: string): boolean {
  return candidate?.type === 'Identifier' && candidate.value === word;
}

function token(value: string, type: Token['type']): Token {
  return { value, type };
}
