import { type AST, RegExpParser, visitRegExpAST } from '@eslint-community/regexpp';

/**
 * Patterns with look-around, which linear engines refuse and tools of training write to pick modules:
 * `^(?!.*lm_head).*proj$`. Only whether a path matches is asked, so sets of positions replace backtracking: a node of
 * the pattern looks at each position of the path once, and the time is bounded by their product.
 */
export class LookAroundPattern {
  readonly #pattern: AST.Pattern;
  readonly #spend: (steps: number) => void;

  /** `spend` is told of each step before it is taken and may throw. Throws where Python's `source` is none or needs more. */
  constructor(source: string, spend: (steps: number) => void) {
    const text = asEcmaScript(source);
    this.#pattern = new RegExpParser({ ecmaVersion: 2025 }).parsePattern(text, 0, text.length, false);
    this.#spend = spend;
    visitRegExpAST(this.#pattern, {
      onBackreferenceEnter: refuse,
      onModifiersEnter: refuse,
    });
  }

  /** Python's `re.fullmatch`. */
  matches(path: string): boolean {
    return new Match(path, this.#spend).ends(this.#pattern, new Set([0])).has(path.length);
  }

  /** Python's `re.match`. */
  lookingAt(path: string): boolean {
    return new Match(path, this.#spend).ends(this.#pattern, new Set([0])).size > 0;
  }
}

function refuse(node: AST.Node): never {
  throw new SyntaxError(`${node.raw} is not supported`);
}

/** What Python writes in another way. */
function asEcmaScript(source: string): string {
  return source.replace(/\\[\s\S]|\[(?:\\[\s\S]|[^\]\\])*\]|\(\?P</g, (part) => {
    if (part === '(?P<') return '(?<';
    return part === '\\A' ? '^' : part === '\\Z' ? '$' : part;
  });
}

type Positions = Set<number>;

/** One path. */
class Match {
  readonly #path: string;
  readonly #spend: (steps: number) => void;
  readonly #assertions = new Map<AST.Assertion, Map<number, boolean>>();

  constructor(path: string, spend: (steps: number) => void) {
    this.#path = path;
    this.#spend = spend;
  }

  /** Where `node` may end if it begins at one of `starts`. */
  ends(node: AST.Pattern | AST.Alternative | AST.Element, starts: Positions): Positions {
    this.#spend(1 + starts.size);
    if (starts.size === 0) return starts;
    switch (node.type) {
      case 'Pattern':
      case 'Group':
      case 'CapturingGroup':
        return union(node.alternatives.map((alternative) => this.ends(alternative, starts)));
      case 'Alternative':
        return node.elements.reduce((positions, element) => this.ends(element, positions), starts);
      case 'Quantifier':
        return this.#repeated(node, starts);
      case 'Assertion':
        return new Set([...starts].filter((at) => this.#holds(node, at)));
      case 'Character':
      case 'CharacterSet':
      case 'CharacterClass':
        return new Set(
          [...starts].flatMap((at) => {
            return at < this.#path.length && isIn(node, this.#path.charCodeAt(at)) ? [at + 1] : [];
          }),
        );
      default:
        return refuse(node);
    }
  }

  #repeated({ element, min, max }: AST.Quantifier, starts: Positions): Positions {
    const found: Positions = new Set();
    let current = starts;
    for (let times = 0; current.size > 0; times += 1) {
      if (times >= min) {
        current = new Set([...current].filter((at) => !found.has(at)));
        for (const at of current) found.add(at);
      }
      if (times === max) break;
      current = this.ends(element, current);
    }
    return found;
  }

  #holds(assertion: AST.Assertion, at: number): boolean {
    const known = this.#assertions.get(assertion) ?? new Map<number, boolean>();
    this.#assertions.set(assertion, known);
    const holds = known.get(at) ?? this.#decide(assertion, at);
    known.set(at, holds);
    return holds;
  }

  #decide(assertion: AST.Assertion, at: number): boolean {
    const from = (start: number) =>
      'alternatives' in assertion
        ? union(assertion.alternatives.map((alternative) => this.ends(alternative, new Set([start]))))
        : new Set<number>();
    switch (assertion.kind) {
      case 'start':
        return at === 0;
      case 'end':
        return at === this.#path.length;
      case 'word':
        return (this.#isWord(at - 1) !== this.#isWord(at)) !== assertion.negate;
      case 'lookahead':
        return from(at).size > 0 !== assertion.negate;
      case 'lookbehind':
        return (
          Array.from({ length: at + 1 }, (_, start) => start).some((start) => from(start).has(at)) !==
          assertion.negate
        );
    }
  }

  #isWord(at: number): boolean {
    return /\w/.test(this.#path.charAt(at));
  }
}

function union(sets: Positions[]): Positions {
  return new Set(sets.flatMap((set) => [...set]));
}

function isIn(
  node: AST.CharacterClassElement | AST.CharacterClass | AST.CharacterSet,
  code: number,
): boolean {
  switch (node.type) {
    case 'Character':
      return node.value === code;
    case 'CharacterClassRange':
      return node.min.value <= code && code <= node.max.value;
    case 'CharacterClass':
      return node.elements.some((element) => isIn(element, code)) !== node.negate;
    case 'CharacterSet':
      return isInSet(node, String.fromCharCode(code));
    default:
      return refuse(node);
  }
}

function isInSet(set: AST.CharacterSet, character: string): boolean {
  switch (set.kind) {
    case 'any':
      return character !== '\n';
    case 'digit':
      return /\d/.test(character) !== set.negate;
    case 'space':
      return /\s/.test(character) !== set.negate;
    case 'word':
      return /\w/.test(character) !== set.negate;
    default:
      return refuse(set);
  }
}
