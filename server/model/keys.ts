import { malformed } from './errors.ts';

/** A JSON object whose values are not checked yet. */
export type Keys = Record<string, unknown>;

export function positiveInteger(keys: Keys, key: string): number {
  const value = keys[key];
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 1 && value < 2 ** 31) return value;
  throw malformed(key, 'a whole number from 1 to 2147483647', value);
}

export function positiveNumber(keys: Keys, key: string): number {
  const value = keys[key];
  if (typeof value === 'number' && value > 0) return value;
  throw malformed(key, 'a number above 0', value);
}

/** Absent and null are false. */
export function readSwitch(keys: Keys, key: string): boolean {
  const value = keys[key] ?? false;
  if (typeof value === 'boolean') return value;
  throw malformed(key, 'true or false', value);
}

export function optionalKeys(keys: Keys, key: string): Keys | null {
  const value = keys[key] ?? null;
  if (value === null || (typeof value === 'object' && !Array.isArray(value))) return value as Keys | null;
  throw malformed(key, 'an object', value);
}
