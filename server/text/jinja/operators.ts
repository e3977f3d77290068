import { printf, printfArguments } from './printf.ts';
import {
  compare,
  contains,
  equal,
  Float,
  numeric,
  str,
  TemplateError,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.ts';

/** `'-' * 80` is fine, and a slip of the pen must not take all memory. */
const REPEATED_MAX = 1 << 20;

/** What stands between two values, but for `and` and `or`. */
export function binary(operator: string, left: Value, right: Value): Value {
  switch (operator) {
    case '==':
      return equal(left, right);
    case '!=':
      return !equal(left, right);
    case 'in':
      return contains(right, left);
    case 'not in':
      return !contains(right, left);
    case '~':
      return str(left) + str(right);
    case '<':
      return compare(left, right, operator) < 0;
    case '<=':
      return compare(left, right, operator) <= 0;
    case '>':
      return compare(left, right, operator) > 0;
    case '>=':
      return compare(left, right, operator) >= 0;
    default:
      return arithmetic(operator, left, right);
  }
}

function arithmetic(operator: string, left: Value, right: Value): Value {
  if (left instanceof Undefined) left.fail();
  if (right instanceof Undefined) right.fail();
  if (operator === '%' && typeof left === 'string') return printf(left, printfArguments(right));
  if (operator === '+') {
    const joined = concatenated(left, right);
    if (joined !== null) return joined;
  }
  if (operator === '*') {
    const repeated = repeat(left, right) ?? repeat(right, left);
    if (repeated !== null) return repeated;
  }
  const [a, b] = [numeric(left), numeric(right)];
  if (a === null || b === null) throw new TemplateError(mismatch(operator, left, right));
  const result = calculate(operator, a, b);
  const isFloat =
    operator === '/' || [left, right].some((side) => side instanceof Float) || !Number.isInteger(result);
  return isFloat ? new Float(result) : result;
}

function concatenated(left: Value, right: Value): Value {
  if (typeof left === 'string' && typeof right === 'string') return left + right;
  if (Array.isArray(left) && Array.isArray(right)) return [...left, ...right];
  if (left instanceof Tuple && right instanceof Tuple) return new Tuple([...left.items, ...right.items]);
  return null;
}

function mismatch(operator: string, left: Value, right: Value): string {
  const [a, b] = [typeName(left), typeName(right)];
  if (operator === '+' && ['str', 'list', 'tuple'].includes(a))
    return `can only concatenate ${a} (not "${b}") to ${a}`;
  return `unsupported operand type(s) for ${operator}: '${a}' and '${b}'`;
}

function repeat(value: Value, times: Value): Value {
  if (typeof times !== 'number' || !(typeof value === 'string' || Array.isArray(value))) return null;
  const count = Math.max(times, 0);
  if (count * value.length > REPEATED_MAX)
    throw new TemplateError(`Expected at most ${REPEATED_MAX} items to repeat`);
  return typeof value === 'string' ? value.repeat(count) : Array.from({ length: count }, () => value).flat();
}

function calculate(operator: string, a: number, b: number): number {
  if (b === 0 && ['/', '//', '%'].includes(operator)) throw new TemplateError('division by zero');
  switch (operator) {
    case '+':
      return a + b;
    case '-':
      return a - b;
    case '*':
      return a * b;
    case '/':
      return a / b;
    case '//':
      return Math.floor(a / b);
    case '%':
      return a - b * Math.floor(a / b);
    case '**':
      return a ** b;
    default:
      throw new TemplateError(`Unknown operator ${operator}`);
  }
}
