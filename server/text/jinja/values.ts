// Python's values, as far as a template can tell them apart. A dict has strings as its keys, as JSON has.

/** The template did what Python or Jinja refuse, or refused by itself. */
export class TemplateError extends Error {}

/** A number with a fraction; whole numbers are plain numbers. */
export class Float {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

/** What a name or an attribute that there is not gives; most uses of it fail with the reason. */
export class Undefined {
  readonly reason: string;
  constructor(reason: string) {
    this.reason = reason;
  }
  fail(): never {
    throw new TemplateError(this.reason);
  }
}

export class Tuple {
  readonly items: Value[];
  constructor(items: Value[]) {
    this.items = items;
  }
}

export class Namespace {
  readonly attributes = new Map<string, Value>();
}

export type Dict = Map<string, Value>;
export type Callable = (args: Value[], named: Dict) => Value;
export type Value =
  | null
  | boolean
  | number
  | string
  | Float
  | Undefined
  | Tuple
  | Namespace
  | Dict
  | Callable
  | Value[];

export function fromJson(value: unknown): Value {
  if (value === undefined) return null;
  if (typeof value === 'number') return Number.isInteger(value) ? value : new Float(value);
  if (Array.isArray(value)) return value.map(fromJson);
  if (typeof value !== 'object' || value === null) return value as Value;
  return new Map(Object.entries(value).map(([key, item]) => [key, fromJson(item)]));
}

export function typeName(value: Value): string {
  if (value === null) return 'NoneType';
  if (Array.isArray(value)) return 'list';
  if (value instanceof Map) return 'dict';
  if (value instanceof Float) return 'float';
  if (value instanceof Undefined) return 'Undefined';
  if (typeof value === 'object') return value.constructor.name.toLowerCase();
  return { boolean: 'bool', number: 'int', string: 'str' }[typeof value as string] ?? 'function';
}

/** How Jinja's messages call the owner of an attribute. */
export function ownerName(value: Value): string {
  return value === null ? 'None' : `${typeName(value)} object`;
}

export function truthy(value: Value): boolean {
  if (value instanceof Undefined) return false;
  if (value instanceof Float) return value.value !== 0;
  if (value instanceof Tuple) return value.items.length > 0;
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof Map) return value.size > 0;
  return Boolean(value);
}

/** The number that a value is in arithmetic, or null: booleans count. */
export function numeric(value: Value): number | null {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean') return Number(value);
  return value instanceof Float ? value.value : null;
}

export function itemsOf(value: Value): Value[] | null {
  if (value instanceof Tuple) return value.items;
  return Array.isArray(value) ? value : null;
}

/** What a loop goes through. */
export function iterate(value: Value): Value[] {
  const items = itemsOf(value);
  if (items !== null) return items;
  if (typeof value === 'string') return [...value];
  if (value instanceof Map) return [...value.keys()];
  if (value instanceof Undefined) return [];
  throw new TemplateError(`'${typeName(value)}' object is not iterable`);
}

export function lengthOf(value: Value): number {
  const isSized = typeof value === 'string' || itemsOf(value) !== null || value instanceof Map;
  if (isSized || value instanceof Undefined) return iterate(value).length;
  throw new TemplateError(`object of type '${typeName(value)}' has no len()`);
}

export function equal(a: Value, b: Value): boolean {
  const [x, y] = [numeric(a), numeric(b)];
  if (x !== null || y !== null) return x === y;
  if (a instanceof Undefined) return b instanceof Undefined;
  if (a instanceof Tuple && b instanceof Tuple) return equal(a.items, b.items);
  if (Array.isArray(a) && Array.isArray(b))
    return a.length === b.length && a.every((item, index) => equal(item, b[index] as Value));
  if (a instanceof Map && b instanceof Map)
    return a.size === b.size && [...a].every(([key, item]) => b.has(key) && equal(item, b.get(key) as Value));
  return a === b;
}

/** Negative where `a` comes first. */
export function compare(a: Value, b: Value, operator = '<'): number {
  const [x, y] = [numeric(a), numeric(b)];
  if (x !== null && y !== null) return x - y;
  if (typeof a === 'string' && typeof b === 'string') return compareText(a, b);
  const [left, right] = [itemsOf(a), itemsOf(b)];
  if (left !== null && right !== null && typeName(a) === typeName(b)) {
    const different = left.findIndex(
      (item, index) => index >= right.length || !equal(item, right[index] as Value),
    );
    if (different < 0 || different >= right.length) return left.length - right.length;
    return compare(left[different] as Value, right[different] as Value, operator);
  }
  if (a instanceof Undefined) a.fail();
  if (b instanceof Undefined) b.fail();
  throw new TemplateError(
    `'${operator}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`,
  );
}

/** By code points, as Python: UTF-16 puts what is beyond U+FFFF before U+E000. */
export function compareText(a: string, b: string): number {
  const [x, y] = [[...a], [...b]];
  const different = x.findIndex((character, index) => character !== y[index]);
  if (different < 0 || y[different] === undefined) return x.length - y.length;
  return (x[different]?.codePointAt(0) ?? 0) - (y[different]?.codePointAt(0) ?? 0);
}

export function contains(container: Value, item: Value): boolean {
  if (typeof container === 'string') {
    if (typeof item === 'string') return container.includes(item);
    throw new TemplateError(`'in <string>' requires string as left operand, not ${typeName(item)}`);
  }
  if (container instanceof Map) return typeof item === 'string' && container.has(item);
  if (itemsOf(container) === null && !(container instanceof Undefined))
    throw new TemplateError(`argument of type '${typeName(container)}' is not iterable`);
  return iterate(container).some((candidate) => equal(candidate, item));
}

/** As `str()` writes it: what `{{ … }}` puts out. */
export function str(value: Value): string {
  if (typeof value === 'string') return value;
  return value instanceof Undefined ? '' : repr(value);
}

export function repr(value: Value): string {
  if (value === null) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (typeof value === 'string') return reprText(value);
  if (value instanceof Float) return reprFloat(value.value);
  if (Array.isArray(value)) return `[${value.map(repr).join(', ')}]`;
  if (value instanceof Tuple)
    return value.items.length === 1
      ? `(${repr(value.items[0] as Value)},)`
      : `(${value.items.map(repr).join(', ')})`;
  if (value instanceof Map)
    return `{${[...value].map(([key, item]) => `${reprText(key)}: ${repr(item)}`).join(', ')}}`;
  if (typeof value === 'number') return String(value);
  return value instanceof Undefined ? 'Undefined' : `<${typeName(value)}>`;
}

export function reprFloat(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  const magnitude = Math.abs(value);
  // Python changes to exponents at other places than JavaScript, and writes two digits at least.
  if (value !== 0 && (magnitude < 1e-4 || magnitude >= 1e16))
    return value.toExponential().replace(/e([+-])(\d)$/, 'e$10$2');
  return Number.isInteger(value) ? `${Object.is(value, -0) ? '-0' : value}.0` : String(value);
}

const ESCAPES: Record<string, string> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function reprText(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[\\\n\r\t]|\p{C}|(?! )[\p{Zs}\p{Zl}\p{Zp}]/gu, (character) => {
    const known = ESCAPES[character];
    if (known !== undefined) return known;
    const code = character.codePointAt(0) ?? 0;
    if (code < 0x100) return `\\x${code.toString(16).padStart(2, '0')}`;
    return code < 0x10000
      ? `\\u${code.toString(16).padStart(4, '0')}`
      : `\\U${code.toString(16).padStart(8, '0')}`;
  });
  return quote + (quote === "'" ? escaped.replaceAll("'", "\\'") : escaped) + quote;
}
