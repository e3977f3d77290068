import {
  compare,
  contains,
  equal,
  Float,
  itemsOf,
  Namespace,
  numeric,
  TemplateError,
  Undefined,
  type Value,
} from './values.ts';

export type Test = (value: Value, ...args: Value[]) => boolean;

const isText = (value: Value): value is string => typeof value === 'string';
const isDict = (value: Value) => value instanceof Map;
const isNumber = (value: Value) => numeric(value) !== null;
const isWhole = (value: Value) => typeof value === 'number';
const remainder = (value: Value, by: number) => {
  const number = numeric(value);
  if (number === null) throw new TemplateError('not all arguments converted during string formatting');
  return Math.abs(number % by);
};

/** Jinja's own, but for those that only HTML needs. */
export const TESTS: Record<string, Test> = {
  boolean: (value) => typeof value === 'boolean',
  callable: (value) => typeof value === 'function',
  defined: (value) => !(value instanceof Undefined),
  divisibleby: (value, by = null) => remainder(value, numeric(by) ?? 1) === 0,
  eq: (value, other = null) => equal(value, other),
  equalto: (value, other = null) => equal(value, other),
  even: (value) => remainder(value, 2) === 0,
  false: (value) => value === false,
  float: (value) => value instanceof Float,
  ge: (value, other = null) => compare(value, other, '>=') >= 0,
  greaterthan: (value, other = null) => compare(value, other, '>') > 0,
  gt: (value, other = null) => compare(value, other, '>') > 0,
  in: (value, container = null) => contains(container, value),
  integer: isWhole,
  iterable: (value) =>
    isText(value) || isDict(value) || itemsOf(value) !== null || value instanceof Undefined,
  le: (value, other = null) => compare(value, other, '<=') <= 0,
  lessthan: (value, other = null) => compare(value, other) < 0,
  lower: (value) => isText(value) && value === value.toLowerCase() && value !== value.toUpperCase(),
  lt: (value, other = null) => compare(value, other) < 0,
  mapping: (value) => isDict(value) && !(value instanceof Namespace),
  ne: (value, other = null) => !equal(value, other),
  none: (value) => value === null,
  number: isNumber,
  odd: (value) => remainder(value, 2) === 1,
  sameas: (value, other = null) => value === other,
  sequence: (value) =>
    isText(value) || isDict(value) || itemsOf(value) !== null || value instanceof Undefined,
  string: isText,
  true: (value) => value === true,
  undefined: (value) => value instanceof Undefined,
  upper: (value) => isText(value) && value === value.toUpperCase() && value !== value.toLowerCase(),
};

/** As `select('…')` names them: operators too. */
const OPERATORS: Record<string, string> = {
  '==': 'eq',
  '!=': 'ne',
  '<': 'lt',
  '<=': 'le',
  '>': 'gt',
  '>=': 'ge',
};

export function testNamed(name: string): Test {
  const known = OPERATORS[name] ?? name;
  const test = Object.hasOwn(TESTS, known) ? TESTS[known] : undefined;
  if (test === undefined) throw new TemplateError(`No test named '${name}'.`);
  return test;
}
