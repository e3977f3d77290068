import { methodOf } from './methods.ts';
import {
  itemsOf,
  Namespace,
  ownerName,
  repr,
  TemplateError,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.ts';

/** `owner.name`: a dict's method comes before its key of the same name. */
export function attribute(owner: Value, name: string): Value {
  if (owner instanceof Undefined) owner.fail();
  const method = methodOf(owner, name);
  const value = method ?? keyed(owner, name);
  return value === undefined ? missing(owner, name) : value;
}

/** `owner[key]`: a dict's key comes before its method. */
export function item(owner: Value, key: Value): Value {
  if (owner instanceof Undefined) owner.fail();
  if (typeof key === 'string') {
    const value = keyed(owner, key);
    return value === undefined ? attribute(owner, key) : value;
  }
  const items = typeof owner === 'string' ? [...owner] : itemsOf(owner);
  const found = typeof key === 'number' ? items?.at(key) : undefined;
  if (found !== undefined) return found;
  return new Undefined(`${ownerName(owner)} has no element ${repr(key)}`);
}

/** As filters name it: `a.b`, `0`, or a number; what there is not is the fallback, where there is one. */
export function path(owner: Value, steps: Value, fallback?: Value): Value {
  const names = typeof steps === 'string' ? steps.split('.') : [steps];
  return names.reduce((value: Value, name) => {
    const next = item(value, typeof name === 'string' && /^\d+$/.test(name) ? Number(name) : name);
    return next instanceof Undefined && fallback !== undefined ? fallback : next;
  }, owner);
}

export function slice(owner: Value, start: Value, stop: Value, step: Value): Value {
  const all = typeof owner === 'string' ? [...owner] : itemsOf(owner);
  if (all === null) return new Undefined(`${ownerName(owner)} has no element slice`);
  const by = wholeOr(step, 1);
  if (by === 0) throw new TemplateError('slice step cannot be zero');
  const [low, high] = by > 0 ? [0, all.length] : [-1, all.length - 1];
  const bound = (value: Value, fallback: number) => {
    const index = wholeOr(value, fallback);
    const isRelative = value !== null && index < 0;
    return Math.min(Math.max(isRelative ? index + all.length : index, low), high);
  };
  const [from, to] = [bound(start, by > 0 ? low : high), bound(stop, by > 0 ? high : low)];
  const taken: Value[] = [];
  for (let index = from; by > 0 ? index < to : index > to; index += by) taken.push(all[index] as Value);
  if (typeof owner === 'string') return taken.join('');
  return owner instanceof Tuple ? new Tuple(taken) : taken;
}

function wholeOr(value: Value, fallback: number): number {
  if (value === null) return fallback;
  if (typeof value === 'number') return value;
  throw new TemplateError('slice indices must be integers or None');
}

function keyed(owner: Value, name: string): Value | undefined {
  if (owner instanceof Namespace) return owner.attributes.get(name);
  return owner instanceof Map ? owner.get(name) : undefined;
}

/** What Jinja's immutable sandbox keeps from templates. */
const CHANGING = {
  list: ['append', 'clear', 'extend', 'insert', 'pop', 'remove', 'reverse', 'sort'],
  dict: ['clear', 'pop', 'popitem', 'setdefault', 'update'],
};

function missing(owner: Value, name: string): Undefined {
  const type = typeName(owner);
  if ((type === 'list' || type === 'dict') && CHANGING[type].includes(name))
    return new Undefined(`access to attribute '${name}' of '${type}' object is unsafe.`);
  return new Undefined(`'${ownerName(owner)}' has no attribute '${name}'`);
}
