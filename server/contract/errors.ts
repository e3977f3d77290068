import { brief, plain, StrictJsonError } from './strict-json.ts';

/**
 * The catalogue of refusals of the admin API and of the push endpoint: code → HTTP status. Codes are stable; decide
 * on them, never on messages.
 */
export const ERROR_STATUS = {
  // The request itself
  malformed_request: 400,
  malformed_safetensors: 400,
  malformed_config: 400,
  missing_config: 400,
  invalid_name: 400,
  digest_mismatch: 400,
  unauthenticated: 401,
  forbidden: 403,
  route_not_found: 404,
  adapter_not_found: 404,
  revision_not_found: 404,
  method_not_allowed: 405,
  request_timeout: 408,
  step_not_newer: 409,
  stale_fence: 409,
  superseded: 409,
  adapter_deleting: 409,
  not_push_source: 409,
  length_required: 411,
  precondition_failed: 412,
  body_too_large: 413,
  unsupported_media_type: 415,
  unsupported_encoding: 415,
  // The adapter does not fit the base model or this server
  unsupported_adapter_feature: 422,
  unsupported_dtype: 422,
  unknown_module: 422,
  unexpected_tensor: 422,
  missing_tensor: 422,
  shape_mismatch: 422,
  rank_mismatch: 422,
  rank_too_large: 422,
  non_finite: 422,
  no_modules: 422,
  zero_effect: 422,
  verification_failed: 422,
  too_many_requests: 429,
  header_too_large: 431,
  internal: 500,
  pod_failed: 502,
  no_capacity: 503,
  no_pods: 503,
  not_leader: 503,
  not_seeded: 503,
  shutting_down: 503,
  timeout: 504,
} as const;

export type ErrorCode = keyof typeof ERROR_STATUS;

export interface ErrorDetail {
  /** Which tensor, config key or header is wrong. */
  field?: string;
  expected?: unknown;
  actual?: unknown;
  cause?: unknown;
}

/** A refusal that reaches a client as `{"error": {code, message, field, expected, actual}}`. */
export class LorikeetError extends Error {
  readonly code: ErrorCode;
  readonly field: string | undefined;
  readonly expected: unknown;
  readonly actual: unknown;

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    super(message, { cause: detail.cause });
    this.name = 'LorikeetError';
    this.code = code;
    this.field = detail.field;
    this.expected = detail.expected;
    this.actual = detail.actual;
  }

  get status(): number {
    return ERROR_STATUS[this.code];
  }

  toJSON(): { error: Record<string, unknown> } {
    const { code, message, field, expected, actual } = this;
    return { error: { code, message, field, expected, actual } };
  }
}

/** In words, or in words and as the value that a program reads. */
export type Want = string | { words: string; value: unknown };

/** The refusal of one value; `got` may be a stranger's, and undefined where there is none. */
export function expected(code: ErrorCode, field: string, want: Want, got: unknown): LorikeetError {
  const { words, value } = typeof want === 'string' ? { words: want, value: want } : want;
  const named = plain(field, 256);
  const actual = brief(got) ?? null;
  const received = got === undefined ? 'nothing' : JSON.stringify(actual);
  const message = `Expected ${words} for ${named} but received ${received}`;
  return new LorikeetError(code, message, { field: named, expected: value, actual });
}

/** `error` of parseStrictJson as a refusal of `what`; any other is thrown on. */
export function notStrictJson(code: ErrorCode, what: string, error: unknown): LorikeetError {
  if (!(error instanceof StrictJsonError)) throw error;
  const field = plain(String(error.path[0] ?? what), 256);
  const detail = { field, expected: 'strict JSON', actual: error.reason, cause: error };
  return new LorikeetError(code, `${what} is not valid JSON: ${error.message}`, detail);
}
