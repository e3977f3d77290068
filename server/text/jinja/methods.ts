import { Arguments } from './arguments.ts';
import { capitalize, find, replace, split, splitLines, strip, title } from './text.ts';
import {
  type Callable,
  type Dict,
  equal,
  itemsOf,
  iterate,
  str,
  TemplateError,
  Tuple,
  truthy,
  type Value,
} from './values.ts';

type Method<T> = (self: T, given: Arguments) => Value;

const is =
  (pattern: RegExp): Method<string> =>
  (text) =>
    pattern.test(text);
const isCased =
  (fold: (text: string) => string): Method<string> =>
  (text) =>
    text === fold(text) && text.toLowerCase() !== text.toUpperCase();

/** Python's, but for those that only print or encode. */
const OF_TEXT: Record<string, Method<string>> = {
  capitalize: (text) => capitalize(text),
  casefold: (text) => text.toLowerCase(),
  count: (text, given) => text.split(given.text(0, 'sub')).length - 1,
  endswith: (text, given) => oneOf(given, (end) => text.endsWith(end)),
  find: (text, given) => find(text, given.text(0, 'sub'), 'left'),
  format: (text, given) => format(text, given),
  index: (text, given) => found(find(text, given.text(0, 'sub'), 'left')),
  isalnum: is(/^[\p{L}\p{N}]+$/u),
  isalpha: is(/^\p{L}+$/u),
  isdecimal: is(/^\p{Nd}+$/u),
  isdigit: is(/^\p{Nd}+$/u),
  islower: isCased((text) => text.toLowerCase()),
  isnumeric: is(/^\p{N}+$/u),
  isspace: (text) => text !== '' && strip(text, null, 'both') === '',
  isupper: isCased((text) => text.toUpperCase()),
  join: (text, given) => iterate(given.get(0, 'iterable')).map(requireText).join(text),
  lower: (text) => text.toLowerCase(),
  lstrip: (text, given) => strip(text, given.textOrNull(0, 'chars'), 'left'),
  partition: (text, given) => partition(text, given.text(0, 'sep'), 'left'),
  removeprefix: (text, given) => {
    const prefix = given.text(0, 'prefix');
    return text.startsWith(prefix) ? text.slice(prefix.length) : text;
  },
  removesuffix: (text, given) => {
    const suffix = given.text(0, 'suffix');
    return text.endsWith(suffix) ? text.slice(0, text.length - suffix.length) : text;
  },
  replace: (text, given) =>
    replace(text, given.text(0, 'old'), given.text(1, 'new'), given.integer(2, 'count', -1)),
  rfind: (text, given) => find(text, given.text(0, 'sub'), 'right'),
  rpartition: (text, given) => partition(text, given.text(0, 'sep'), 'right'),
  rsplit: (text, given) => split(text, given.textOrNull(0, 'sep'), given.integer(1, 'maxsplit', -1), 'right'),
  rstrip: (text, given) => strip(text, given.textOrNull(0, 'chars'), 'right'),
  split: (text, given) => split(text, given.textOrNull(0, 'sep'), given.integer(1, 'maxsplit', -1), 'left'),
  splitlines: (text, given) => splitLines(text, truthy(given.get(0, 'keepends', false))),
  startswith: (text, given) => oneOf(given, (start) => text.startsWith(start)),
  strip: (text, given) => strip(text, given.textOrNull(0, 'chars'), 'both'),
  title: (text) => title(text),
  upper: (text) => text.toUpperCase(),
  zfill: (text, given) =>
    text.replace(
      /^([+-]?)(.*)$/s,
      (_, sign, digits) => sign + digits.padStart(given.integer(0, 'width') - sign.length, '0'),
    ),
};

/** None that changes the dict: templates run in Jinja's immutable sandbox. */
const OF_DICT: Record<string, Method<Dict>> = {
  copy: (dict) => new Map(dict),
  get: (dict, given) => {
    const key = given.get(0, 'key');
    const value = typeof key === 'string' ? dict.get(key) : undefined;
    return value === undefined ? given.get(1, 'default') : value;
  },
  items: (dict) => [...dict].map((entry) => new Tuple(entry)),
  keys: (dict) => [...dict.keys()],
  values: (dict) => [...dict.values()],
};

const OF_LIST: Record<string, Method<Value[]>> = {
  copy: (list) => [...list],
  count: (list, given) => list.filter((item) => equal(item, given.get(0, 'value'))).length,
  index: (list, given) => found(list.findIndex((item) => equal(item, given.get(0, 'value')))),
};

export function methodOf(value: Value, name: string): Callable | undefined {
  if (typeof value === 'string') return bound(OF_TEXT, name, value);
  if (value instanceof Map) return bound(OF_DICT, name, value);
  const items = itemsOf(value);
  return items === null ? undefined : bound(OF_LIST, name, items);
}

function bound<T>(methods: Record<string, Method<T>>, name: string, self: T): Callable | undefined {
  const method = Object.hasOwn(methods, name) ? methods[name] : undefined;
  return method && ((args, named) => method(self, new Arguments(args, named)));
}

function requireText(item: Value): string {
  if (typeof item === 'string') return item;
  throw new TemplateError('Expected a list of strings to join');
}

/** A string, or a tuple of which one is enough. */
function oneOf(given: Arguments, holds: (text: string) => boolean): boolean {
  const wanted = given.get(0, 'prefix');
  return (wanted instanceof Tuple ? wanted.items : [wanted]).some((text) => holds(requireText(text)));
}

function found(index: number): number {
  if (index >= 0) return index;
  throw new TemplateError('substring or item not found');
}

function partition(text: string, separator: string, from: 'left' | 'right'): Tuple {
  const parts = split(text, separator, 1, from);
  if (parts.length === 2) return new Tuple([parts[0] ?? '', separator, parts[1] ?? '']);
  return new Tuple(from === 'left' ? [text, '', ''] : ['', '', text]);
}

/** Fields without a format: `{}`, `{0}`, `{name}`. */
function format(text: string, given: Arguments): string {
  let next = 0;
  return text.replace(/\{\{|\}\}|\{(\w*)\}|[{}]/g, (whole, field: string | undefined) => {
    if (whole === '{{' || whole === '}}') return whole[0] as string;
    if (field === undefined)
      throw new TemplateError(`Expected {}, {0} or {name} in a format but found ${whole}`);
    const value = /^\d*$/.test(field)
      ? given.positional[field === '' ? next++ : Number(field)]
      : given.named.get(field);
    if (value === undefined) throw new TemplateError(`Nothing was given for {${field}}`);
    return str(value);
  });
}
