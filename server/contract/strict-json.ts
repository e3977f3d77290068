export interface JsonLimits {
  /** Deepest nesting of arrays and objects. */
  depth: number;
  /** `integers` admits only plain digits (no sign, fraction or exponent): what a safetensors header may hold. */
  numbers?: 'any' | 'integers';
}

export class StrictJsonError extends Error {
  /** In characters from the start of the text. */
  readonly position: number;
  readonly reason: string;
  /** Keys and indices from the root to the value that is wrong. */
  readonly path: (string | number)[];

  constructor(reason: string, position: number, path: (string | number)[]) {
    const where = path.length > 0 ? ` in ${quoted(path.join('.'))}` : '';
    super(`${reason} at character ${position}${where}`);
    this.name = 'StrictJsonError';
    this.reason = reason;
    this.position = position;
    this.path = path;
  }
}

/** Text of a stranger as it may stand in a message, a log line or a status: short, printable ASCII. */
export function plain(text: string, charactersMax = 160): string {
  const short = text.length > charactersMax ? `${text.slice(0, charactersMax)}...` : text;
  return short.replace(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

export function quoted(text: string, charactersMax = 160): string {
  return `"${plain(text.replace(/["\\]/g, '\\$&'), charactersMax)}"`;
}

/** A stranger's value as it may stand in an error's `expected` or `actual`: small values whole, others as text. */
export function brief(value: unknown): unknown {
  if (typeof value === 'string') return plain(value);
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > 160 ? plain(text) : value;
}

/** Editors on Windows put it in front of a file; RFC 8259 lets a reader skip it. */
export function withoutByteOrderMark(bytes: Uint8Array): Uint8Array {
  const isMarked = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
  return isMarked ? bytes.subarray(3) : bytes;
}

/**
 * RFC 8259 without its loopholes: `JSON.parse` keeps the last of two equal keys, rounds numbers above 2^53 and lets
 * lone surrogates through, and two readers of one file must not come to two results. Objects have no prototype, so
 * a key named `__proto__` is a key like any other.
 */
export function parseStrictJson(bytes: Uint8Array, limits: JsonLimits): unknown {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new StrictJsonError('Expected UTF-8 but found other bytes', 0, []);
  }
  return new Reader(text, limits).document();
}

const NUMBER = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$/;
const WHOLE = /^-?[0-9]+$/;
const WORDS: [string, boolean | null][] = [
  ['true', true],
  ['false', false],
  ['null', null],
];
const [TAB, NEWLINE, RETURN, SPACE, QUOTE, BACKSLASH] = [9, 10, 13, 32, 34, 92] as const;
const ESCAPES: Record<string, string> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
};

class Reader {
  readonly #text: string;
  readonly #limits: JsonLimits;
  readonly #path: (string | number)[] = [];
  #at = 0;

  constructor(text: string, limits: JsonLimits) {
    this.#text = text;
    this.#limits = limits;
  }

  document(): unknown {
    const value = this.#value();
    this.#skipSpace();
    if (this.#at < this.#text.length) throw this.#error('Expected the end of the JSON but found more text');
    return value;
  }

  #value(): unknown {
    this.#skipSpace();
    const first = this.#text[this.#at] ?? '';
    if (first === '{') return this.#nested(() => this.#object());
    if (first === '[') return this.#nested(() => this.#array());
    if (first === '"') return this.#string();
    if (first === '-' || (first >= '0' && first <= '9')) return this.#number();
    for (const [word, value] of WORDS) {
      if (!this.#text.startsWith(word, this.#at)) continue;
      this.#at += word.length;
      return value;
    }
    throw this.#error('Expected a JSON value');
  }

  #nested<T>(read: () => T): T {
    if (this.#path.length >= this.#limits.depth) {
      throw this.#error(`Expected at most ${this.#limits.depth} levels of nesting`);
    }
    return read();
  }

  #object(): Record<string, unknown> {
    const object: Record<string, unknown> = Object.create(null);
    this.#at += 1;
    if (this.#take('}')) return object;
    do {
      this.#skipSpace();
      const keyAt = this.#at;
      if (this.#text[keyAt] !== '"') throw this.#error('Expected a key in double quotes');
      const key = this.#string();
      if (Object.hasOwn(object, key)) {
        this.#at = keyAt;
        throw this.#error(`Expected each key once but found ${quoted(key)} twice`);
      }
      if (!this.#take(':')) throw this.#error('Expected ":" after a key');
      this.#path.push(key);
      object[key] = this.#value();
      this.#path.pop();
    } while (this.#take(','));
    if (!this.#take('}')) throw this.#error('Expected "," or "}"');
    return object;
  }

  #array(): unknown[] {
    const array: unknown[] = [];
    this.#at += 1;
    if (this.#take(']')) return array;
    do {
      this.#path.push(array.length);
      array.push(this.#value());
      this.#path.pop();
    } while (this.#take(','));
    if (!this.#take(']')) throw this.#error('Expected "," or "]"');
    return array;
  }

  #string(): string {
    let value = '';
    this.#at += 1;
    for (;;) {
      const start = this.#at;
      let unit = this.#text.charCodeAt(this.#at);
      while (unit >= SPACE && unit !== QUOTE && unit !== BACKSLASH) unit = this.#text.charCodeAt(++this.#at);
      value += this.#text.slice(start, this.#at);
      if (unit === QUOTE) break;
      if (unit !== BACKSLASH) {
        throw this.#error('Expected the end of a string but found a control character or the end');
      }
      value += this.#escape();
    }
    this.#at += 1;
    if (!value.isWellFormed()) throw this.#error('Expected Unicode text but found a lone surrogate');
    return value;
  }

  #escape(): string {
    const letter = this.#text[this.#at + 1] ?? '';
    if (letter === 'u') {
      const hex = this.#text.slice(this.#at + 2, this.#at + 6);
      if (!/^[0-9a-fA-F]{4}$/.test(hex)) throw this.#error('Expected four hexadecimal digits after \\u');
      this.#at += 6;
      return String.fromCharCode(Number.parseInt(hex, 16));
    }
    const character = ESCAPES[letter];
    if (character === undefined) throw this.#error('Expected an escape that JSON knows');
    this.#at += 2;
    return character;
  }

  #number(): number {
    let end = this.#at;
    while (isNumeric(this.#text.charCodeAt(end))) end += 1;
    const literal = this.#text.slice(this.#at, end);
    if (!NUMBER.test(literal)) throw this.#error(`Expected a JSON number but found ${quoted(literal)}`);
    if (this.#limits.numbers === 'integers' && (!WHOLE.test(literal) || literal.startsWith('-'))) {
      throw this.#error(`Expected a whole number of plain digits but found ${quoted(literal)}`);
    }
    const value = Number(literal);
    if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value))) {
      throw this.#error(`Expected a number that is exact in 53 bits but found ${quoted(literal)}`);
    }
    this.#at = end;
    return value;
  }

  #skipSpace(): void {
    for (;;) {
      const unit = this.#text.charCodeAt(this.#at);
      if (unit !== SPACE && unit !== NEWLINE && unit !== RETURN && unit !== TAB) return;
      this.#at += 1;
    }
  }

  #take(character: string): boolean {
    this.#skipSpace();
    if (this.#text[this.#at] !== character) return false;
    this.#at += 1;
    return true;
  }

  #error(reason: string): StrictJsonError {
    return new StrictJsonError(reason, this.#at, [...this.#path]);
  }
}

/** Digits, signs, point and exponent, by their character codes. */
function isNumeric(unit: number): boolean {
  return (
    (unit >= 48 && unit <= 57) || unit === 43 || unit === 45 || unit === 46 || unit === 69 || unit === 101
  );
}
