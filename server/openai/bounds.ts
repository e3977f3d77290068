import { badRequest } from './errors.ts';

/**
 * What may stand at one place of a body, as far as it costs time to look at: zod tries every branch on every item and
 * keeps an issue for each, so lists and maps must be known to be small before. Texts, numbers, booleans and null cost
 * nothing and are the schema's to judge.
 */
export interface Bound {
  list?: { itemsMax: number; of: Bound };
  /** `fields` are bounded by name, others by `of`; without `of` they are not looked at. */
  map?: { keysMax: number; fields?: Bounds; of?: Bound };
  /** A list of token ids may stand here, in any number: a whole prompt is one. */
  tokens?: true;
}

/** By field. Fields that are not named are not looked at, here or later. */
export type Bounds = Record<string, Bound>;

/** Items of lists and entries of maps in one body, those in lists of token ids not counted. */
const VALUES_MAX = 32_768;
const TOKEN_MAX = 2 ** 31 - 1;

export const PLAIN: Bound = {};

/** JSON of any shape, nested so deeply and no deeper. */
export function tree(depth: number): Bound {
  if (depth === 0) return PLAIN;
  const of = tree(depth - 1);
  return { list: { itemsMax: VALUES_MAX, of }, map: { keysMax: VALUES_MAX, of } };
}

/** Refuses the first list or map that is too large or out of place; goes no further than that. */
export function requireBounded(body: unknown, bounds: Bounds): void {
  if (!isMap(body)) return;
  const look = new Look();
  for (const [field, bound] of Object.entries(bounds)) {
    if (Object.hasOwn(body, field)) look.at(body[field], bound, field);
  }
}

class Look {
  private values = 0;

  at(value: unknown, bound: Bound, path: string): void {
    if (Array.isArray(value)) this.list(value, bound, path);
    else if (isMap(value)) this.map(value, bound, path);
  }

  private list(items: unknown[], bound: Bound, path: string): void {
    const { list, tokens } = bound;
    if (tokens && (list === undefined || typeof items[0] === 'number')) {
      requireTokens(items, path);
      return;
    }
    if (list === undefined) throw refusal(wordsOf(bound), path, 'a list');
    const { itemsMax, of } = list;
    if (items.length > itemsMax) throw refusal(`at most ${itemsMax} items`, path, items.length);
    this.count(items.length, path);
    for (const [index, item] of items.entries()) this.at(item, of, `${path}.${index}`);
  }

  private map(map: Record<string, unknown>, bound: Bound, path: string): void {
    if (bound.map === undefined) throw refusal(wordsOf(bound), path, 'a map');
    const { keysMax, fields = {}, of } = bound.map;
    const keys = Object.keys(map);
    if (keys.length > keysMax) throw refusal(`at most ${keysMax} keys`, path, keys.length);
    this.count(keys.length, path);
    for (const key of keys) {
      const own = Object.hasOwn(fields, key) ? fields[key] : of;
      if (own !== undefined) this.at(map[key], own, `${path}.${key.slice(0, 64)}`);
    }
  }

  private count(values: number, path: string): void {
    this.values += values;
    if (this.values <= VALUES_MAX) return;
    throw refusal(`at most ${VALUES_MAX} values in all`, path, this.values);
  }
}

function requireTokens(items: unknown[], path: string): void {
  const wrong = firstWrong(items);
  if (wrong === -1) return;
  const item = items[wrong];
  throw refusal('a token id', `${path}.${wrong}`, typeof item === 'number' ? item : kindOf(item));
}

/** Where a value is no token id; a plain loop, for there may be millions. */
function firstWrong(items: unknown[]): number {
  for (let index = 0; index < items.length; index += 1) {
    const item = items[index];
    const isToken = typeof item === 'number' && item >= 0 && item <= TOKEN_MAX && Number.isInteger(item);
    if (!isToken) return index;
  }
  return -1;
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (isMap(value)) return 'a map';
  return value === null ? 'null' : `a ${typeof value}`;
}

function wordsOf({ list, map, tokens }: Bound): string {
  const kinds = [list && 'a list', map && 'a map', tokens && 'a list of token ids', 'a plain value'];
  return kinds.filter((kind) => kind !== undefined).join(' or ');
}

function refusal(words: string, path: string, received: string | number): Error {
  return badRequest(`Expected ${words} for ${path} but received ${received}`, path);
}
