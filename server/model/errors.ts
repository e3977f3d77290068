/**
 * A model directory that cannot be served: `unsupported_model` where it is well formed but needs something that the
 * engine does not have, `malformed_model` where its files contradict each other, `missing_file`.
 */
export class ModelError extends Error {
  readonly code: 'unsupported_model' | 'malformed_model' | 'missing_file';
  /** The config key, tensor or file that is wrong. */
  readonly field: string;
  readonly expected: unknown;
  readonly actual: unknown;

  constructor(
    code: ModelError['code'],
    field: string,
    detail: { expected: unknown; actual: unknown; cause?: unknown },
  ) {
    const { expected, actual, cause } = detail;
    super(`Expected ${text(expected)} for ${field} but received ${text(actual)}`, { cause });
    this.name = 'ModelError';
    this.code = code;
    this.field = field;
    this.expected = expected;
    this.actual = actual;
  }
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value)?.slice(0, 200) ?? 'nothing');
}

export function unsupported(field: string, expected: unknown, actual: unknown): ModelError {
  return new ModelError('unsupported_model', field, { expected, actual });
}

export function malformed(field: string, expected: unknown, actual: unknown): ModelError {
  return new ModelError('malformed_model', field, { expected, actual });
}
