import type { Arguments } from './arguments.ts';
import { dumps } from './json.ts';
import { printf } from './printf.ts';
import { testNamed } from './tests.ts';
import { capitalize, indent, replace, split, strip, titleWords } from './text.ts';
import {
  compare,
  contains,
  Float,
  itemsOf,
  iterate,
  lengthOf,
  numeric,
  str,
  TemplateError,
  Tuple,
  truthy,
  typeName,
  Undefined,
  type Value,
} from './values.ts';

export interface FilterContext {
  attribute(owner: Value, path: Value, fallback?: Value): Value;
  filter(name: string, value: Value, given: Arguments): Value;
}

type Filter = (value: Value, given: Arguments, context: FilterContext) => Value;

const count: Filter = (value) => lengthOf(value);
const orDefault: Filter = (value, given) => {
  const isMissing = value instanceof Undefined || (truthy(given.get(1, 'boolean', false)) && !truthy(value));
  return isMissing ? given.get(0, 'default_value', '') : value;
};
const end =
  (pick: (items: Value[]) => Value | undefined): Filter =>
  (value) =>
    pick(iterate(value)) ?? new Undefined('No item of an empty sequence');

/** Jinja's own, and transformers' tojson; those that only HTML needs are left out. */
const FILTERS: Record<string, Filter> = {
  abs: (value) => sameKind(value, Math.abs(requireNumber(value))),
  attr: (value, given, { attribute }) => attribute(value, given.text(0, 'name')),
  batch: (value, given) => batches(iterate(value), given.integer(0, 'linecount'), given.get(1, 'fill_with')),
  capitalize: (value) => capitalize(str(value)),
  count,
  d: orDefault,
  default: orDefault,
  dictsort: (value, given) => dictSort(value, given),
  first: end((items) => items[0]),
  float: (value, given) => toFloat(value) ?? given.get(0, 'default', new Float(0)),
  format: (value, given) => printf(str(value), given.positional),
  indent: (value, given) => {
    const width = given.get(0, 'width', 4);
    const by = typeof width === 'string' ? width : ' '.repeat(given.integer(0, 'width', 4));
    return indent(str(value), by, truthy(given.get(1, 'first', false)), truthy(given.get(2, 'blank', false)));
  },
  int: (value, given) => toInteger(value) ?? given.get(0, 'default', 0),
  items: (value) => {
    if (value instanceof Undefined) return [];
    if (value instanceof Map) return [...value].map((entry) => new Tuple(entry));
    throw new TemplateError('Can only get item pairs from a mapping.');
  },
  join: (value, given, { attribute }) => {
    const path = given.get(1, 'attribute');
    const items = iterate(value).map((item) => (path === null ? item : attribute(item, path)));
    return items.map(str).join(given.text(0, 'd', ''));
  },
  last: end((items) => items.at(-1)),
  length: count,
  list: (value) => [...iterate(value)],
  lower: (value) => str(value).toLowerCase(),
  map: (value, given, context) => iterate(value).map((item) => mapped(item, given, context)),
  max: (value) => extreme(iterate(value), 1),
  min: (value) => extreme(iterate(value), -1),
  reject: (value, given, context) => chosen(value, given, context, false, false),
  rejectattr: (value, given, context) => chosen(value, given, context, false, true),
  replace: (value, given) =>
    replace(str(value), given.text(0, 'old'), given.text(1, 'new'), given.integer(2, 'count', -1)),
  reverse: (value) =>
    typeof value === 'string' ? [...value].reverse().join('') : [...iterate(value)].reverse(),
  round: (value, given) =>
    rounded(requireNumber(value), given.integer(0, 'precision', 0), given.text(1, 'method', 'common')),
  safe: (value) => value,
  select: (value, given, context) => chosen(value, given, context, true, false),
  selectattr: (value, given, context) => chosen(value, given, context, true, true),
  sort: (value, given, { attribute }) => {
    const [reverse, cased] = [
      truthy(given.get(0, 'reverse', false)),
      truthy(given.get(1, 'case_sensitive', false)),
    ];
    const path = given.get(2, 'attribute');
    const key = (item: Value) => folded(path === null ? item : attribute(item, path), cased);
    return sorted(iterate(value), key, reverse);
  },
  string: (value) => str(value),
  sum: (value, given, { attribute }) => {
    const path = given.get(0, 'attribute');
    const items = iterate(value).map((item) => (path === null ? item : attribute(item, path)));
    const total = items.reduce(
      (sum: number, item) => sum + requireNumber(item),
      requireNumber(given.get(1, 'start', 0)),
    );
    return items.some((item) => item instanceof Float) ? new Float(total) : total;
  },
  title: (value) => titleWords(str(value)),
  tojson: (value, given) => toJson(value, given),
  trim: (value, given) => strip(str(value), given.textOrNull(0, 'chars'), 'both'),
  unique: (value, given) => {
    const cased = truthy(given.get(0, 'case_sensitive', false));
    const seen: Value[] = [];
    return iterate(value).filter((item) => {
      const key = folded(item, cased);
      if (contains(seen, key)) return false;
      seen.push(key);
      return true;
    });
  },
  upper: (value) => str(value).toUpperCase(),
  wordcount: (value) => split(str(value), null, -1, 'left').length,
};

const COMPARING_TEST = /^is (not )?(\w+)$/;

export function filterNamed(name: string): Filter {
  const [, not, test] = COMPARING_TEST.exec(name) ?? [];
  if (test !== undefined) {
    const holds = testNamed(test);
    return (value, given) => holds(value, ...given.positional) !== (not !== undefined);
  }
  const filter = Object.hasOwn(FILTERS, name) ? FILTERS[name] : undefined;
  if (filter === undefined) throw new TemplateError(`No filter named '${name}'.`);
  return filter;
}

function requireNumber(value: Value): number {
  const number = numeric(value);
  if (number !== null) return number;
  if (value instanceof Undefined) value.fail();
  throw new TemplateError(`Expected a number but received a ${typeName(value)}`);
}

function sameKind(value: Value, result: number): Value {
  return value instanceof Float ? new Float(result) : result;
}

function rounded(value: number, precision: number, method: string): Float {
  const scale = 10 ** precision;
  if (method === 'ceil') return new Float(Math.ceil(value * scale) / scale);
  if (method === 'floor') return new Float(Math.floor(value * scale) / scale);
  const whole = Math.round(value * scale);
  // Python rounds halves to the even neighbour.
  const isHalf = Math.abs(value * scale - Math.trunc(value * scale)) === 0.5;
  return new Float((isHalf && whole % 2 !== 0 ? whole - 1 : whole) / scale);
}

function toFloat(value: Value): Float | null {
  const number = typeof value === 'string' ? parseNumber(value) : numeric(value);
  return number === null ? null : new Float(number);
}

function toInteger(value: Value): number | null {
  const number = typeof value === 'string' ? parseNumber(value) : numeric(value);
  return number === null || !Number.isFinite(number) ? null : Math.trunc(number);
}

function parseNumber(text: string): number | null {
  const bare = strip(text, null, 'both');
  return /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(bare) ? Number(bare) : null;
}

function batches(items: Value[], size: number, fill: Value): Value {
  if (size < 1) throw new TemplateError('Expected at least one item in a batch');
  const rows: Value[][] = [];
  for (let start = 0; start < items.length; start += size) rows.push(items.slice(start, start + size));
  const last = rows.at(-1);
  while (fill !== null && last !== undefined && last.length < size) last.push(fill);
  return rows;
}

function folded(value: Value, isCased: boolean): Value {
  return typeof value === 'string' && !isCased ? value.toLowerCase() : value;
}

function sorted(items: Value[], key: (item: Value) => Value, reverse: boolean): Value[] {
  return items.toSorted((a, b) => (reverse ? compare(key(b), key(a)) : compare(key(a), key(b))));
}

function dictSort(value: Value, given: Arguments): Value {
  if (!(value instanceof Map))
    throw new TemplateError(`'${typeName(value)}' object has no attribute 'items'`);
  const isCased = truthy(given.get(0, 'case_sensitive', false));
  const place = given.text(1, 'by', 'key') === 'key' ? 0 : 1;
  const entries = [...value].map((entry) => new Tuple(entry));
  const key = (entry: Value) => folded((entry as Tuple).items[place] ?? null, isCased);
  return sorted(entries, key, truthy(given.get(2, 'reverse', false)));
}

function extreme(items: Value[], sign: 1 | -1): Value {
  const [first, ...rest] = items;
  if (first === undefined) return new Undefined('No aggregated item, sequence was empty.');
  const beats = (a: Value, b: Value) => sign * compare(folded(a, false), folded(b, false)) > 0;
  return rest.reduce((best, item) => (beats(item, best) ? item : best), first);
}

/** `map('upper')` or `map(attribute='a.b', default=…)`. */
function mapped(item: Value, given: Arguments, context: FilterContext): Value {
  const path = given.named.get('attribute');
  if (path === undefined) {
    const rest = given.rest(1);
    return context.filter(given.text(0, 'filter'), item, rest);
  }
  return context.attribute(item, path, given.named.get('default'));
}

function chosen(
  value: Value,
  given: Arguments,
  context: FilterContext,
  wanted: boolean,
  byAttribute: boolean,
): Value {
  const path = byAttribute ? given.get(0, 'attribute') : null;
  const [name, ...args] = given.positional.slice(byAttribute ? 1 : 0);
  const test = name === undefined ? truthy : testNamed(str(name));
  return iterate(value).filter(
    (item) => test(byAttribute ? context.attribute(item, path) : item, ...args) === wanted,
  );
}

function toJson(value: Value, given: Arguments): string {
  const indentation = given.get(1, 'indent');
  const separators = itemsOf(given.get(2, 'separators'));
  const indent = typeof indentation === 'number' ? ' '.repeat(indentation) : indentation;
  return dumps(value, {
    ensureAscii: truthy(given.get(0, 'ensure_ascii', false)),
    indent: typeof indent === 'string' ? indent : null,
    separators:
      separators === null
        ? { item: indent === null ? ', ' : ',', key: ': ' }
        : { item: str(separators[0] ?? null), key: str(separators[1] ?? null) },
    sortKeys: truthy(given.get(3, 'sort_keys', false)),
  });
}
