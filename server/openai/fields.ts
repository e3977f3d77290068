import { z } from 'zod';

/** What of a value is wrong, and where in it. */
export interface Wrong {
  message: string;
  path: PropertyKey[];
}

/** The first thing that is wrong, in words. */
export function firstWrong({ issues: [issue] }: z.ZodError): Wrong {
  if (issue === undefined) return { message: 'is wrong', path: [] };
  if (issue.code !== 'unrecognized_keys') return { message: issue.message, path: issue.path };
  return { message: 'is not supported', path: [...issue.path, ...issue.keys.slice(0, 1)] };
}

type Context = z.RefinementCtx<unknown>;

function refuse(context: Context, message: string, path: PropertyKey[] = []): never {
  context.addIssue({ code: 'custom', message, path });
  return z.NEVER;
}

/** The value as `schema` has it; a refusal says what is wrong at `path` of it. */
export function take<T extends z.ZodType>(
  schema: T,
  value: unknown,
  context: Context,
  path: PropertyKey[] = [],
): z.output<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const wrong = firstWrong(result.error);
  return refuse(context, wrong.message, [...path, ...wrong.path]);
}

/** Absent and null mean the same to OpenAI's clients. */
export function optional<T extends z.ZodType, D>(schema: T, fallback: D) {
  return schema.nullish().transform((value): z.output<T> | D => value ?? fallback);
}

/**
 * One of several schemas, chosen by the kind of the value: of a union zod would say only that none fits. Null: the
 * value is no `want`.
 */
export function oneOf<T extends z.ZodType>(want: string, choose: (value: unknown) => T | null) {
  return z
    .unknown()
    .optional()
    .transform((value, context): z.output<T> => {
      const schema = choose(value);
      if (schema === null) return refuse(context, `Expected ${want} but received ${kindOf(value)}`);
      return take(schema, value, context);
    });
}

/** Counts first and stops at the first item that is wrong: zod would keep an issue for each of millions. */
export function listOf<T extends z.ZodType>(
  what: string,
  item: T,
  { min = 0, max }: { min?: number; max: number },
) {
  return z
    .unknown()
    .optional()
    .transform((value, context): z.output<T>[] => {
      if (!Array.isArray(value))
        return refuse(context, `Expected a list of ${what} but received ${kindOf(value)}`);
      const items: z.output<T>[] = [];
      if (value.length < min || value.length > max) {
        return refuse(context, `Expected ${rangeOf(min, max)} ${what} but received ${value.length}`);
      }
      for (const [index, entry] of value.entries()) {
        const result = item.safeParse(entry);
        if (result.success) {
          items.push(result.data);
          continue;
        }
        const wrong = firstWrong(result.error);
        return refuse(context, wrong.message, [index, ...wrong.path]);
      }
      return items;
    });
}

/** Token ids as they are: lists of millions are checked in a few milliseconds. */
export function tokenList({ min = 0, max = Number.POSITIVE_INFINITY }: { min?: number; max?: number } = {}) {
  return z
    .unknown()
    .optional()
    .transform((value, context): number[] => {
      if (!Array.isArray(value)) {
        return refuse(context, `Expected a list of token ids but received ${kindOf(value)}`);
      }
      if (value.length < min || value.length > max) {
        return refuse(context, `Expected ${rangeOf(min, max)} token ids but received ${value.length}`);
      }
      const wrong = value.findIndex((token) => !isTokenId(token));
      if (wrong >= 0) return refuse(context, 'Expected a token id, a whole number from 0', [wrong]);
      return value;
    });
}

/** Entries of an object; null values are absent. */
export function entriesOf<T extends z.ZodType>(
  keys: { pattern: RegExp; want: string; max: number },
  schema: T,
) {
  return z
    .unknown()
    .optional()
    .transform((value, context): Record<string, z.output<T>> => {
      if (typeof value !== 'object' || value === null || Array.isArray(value)) {
        return refuse(context, `Expected an object but received ${kindOf(value)}`);
      }
      const given = Object.entries(value).filter(([, item]) => item !== null);
      if (given.length > keys.max) {
        return refuse(context, `Expected at most ${keys.max} entries but received ${given.length}`);
      }
      const stranger = given.find(([key]) => !keys.pattern.test(key));
      if (stranger !== undefined) return refuse(context, `Expected ${keys.want} as the key`, [stranger[0]]);
      return Object.fromEntries(given.map(([key, item]) => [key, take(schema, item, context, [key])]));
    });
}

function isTokenId(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 31;
}

function rangeOf(min: number, max: number): string {
  if (min === 0) return `at most ${max}`;
  return max === Number.POSITIVE_INFINITY ? `at least ${min}` : `${min} to ${max}`;
}

function kindOf(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  return Array.isArray(value)
    ? 'a list'
    : ({ object: 'an object', string: 'a text' }[typeof value as string] ?? `a ${typeof value}`);
}
