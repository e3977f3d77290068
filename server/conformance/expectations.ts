import { isDeepStrictEqual } from 'node:util';
import type { z } from 'zod';
import { ErrorReply } from '../contract/adapter-api.ts';
import { ERRORS, type ErrorCode } from '../contract/errors.ts';
import type { Answer } from './client.ts';

/** A check that found the server wanting. */
export class Unmet extends Error {
  readonly expected: string;
  readonly actual: string;

  constructor(expected: string, actual: string) {
    super(`Expected ${expected} but received ${actual}`);
    this.name = 'Unmet';
    this.expected = expected;
    this.actual = actual;
  }
}

/** A check that has nothing to look at here. */
export class Skipped extends Error {}

const TEXT_LENGTH_MAX = 400;

/** As it can stand in a line. */
export function told(value: unknown): string {
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? 'nothing');
  return text.length <= TEXT_LENGTH_MAX ? text : `${text.slice(0, TEXT_LENGTH_MAX)}…`;
}

export function requireThat(isMet: boolean, expected: string, actual: unknown): asserts isMet {
  if (!isMet) throw new Unmet(expected, told(actual));
}

export function requireSame(what: string, actual: unknown, expected: unknown): void {
  requireThat(isDeepStrictEqual(actual, expected), `${what}: ${told(expected)}`, actual);
}

/** The fields of `expected` alone. */
export function requireFields(what: string, actual: object, expected: Record<string, unknown>): void {
  for (const [field, value] of Object.entries(expected)) {
    requireSame(`${what}, ${field}`, (actual as Record<string, unknown>)[field], value);
  }
}

/** The answer's JSON, where it has this status and is as the contract has it. */
export function requireAnswer<T extends z.ZodType>(answer: Answer, schema: T, status = 200): z.output<T> {
  requireStatus(answer, status);
  const parsed = schema.safeParse(answer.json);
  const [issue] = parsed.error?.issues ?? [];
  const wanted = `JSON to ${answer.call} with ${issue?.path.join('.') || 'body'}: ${issue?.message}`;
  requireThat(parsed.success, wanted, answer.json ?? answer.text);
  return parsed.data;
}

export function requireStatus(answer: Answer, status: number): void {
  requireThat(answer.status === status, `${status} to ${answer.call}`, said(answer));
}

/** A refusal of the catalogue: its status, its code, and a time where it is worth another try. */
export function requireRefusal(answer: Answer, ...codes: [ErrorCode, ...ErrorCode[]]): ErrorReply['error'] {
  const wanted = `${codes.map((code) => `${ERRORS[code].status} ${code}`).join(' or ')} to ${answer.call}`;
  const { error } = ErrorReply.safeParse(answer.json).data ?? {};
  const code = codes.find((candidate) => candidate === error?.code);
  const isMet = error !== undefined && code !== undefined && answer.status === ERRORS[code].status;
  requireThat(isMet, wanted, said(answer));
  return error;
}

function said({ status, text }: Answer): string {
  return text === '' ? String(status) : `${status} ${text}`;
}
