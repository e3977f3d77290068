import type { IncomingMessage } from 'node:http';
import { DIGEST_PATTERN, HEADER } from '../../server/contract/adapter-api.ts';
import { LorikeetError } from '../../server/contract/errors.ts';

/** What the request line and the headers of a push say; nothing of its body has been read. */
export interface Asked {
  /** Content-Length; null for a chunked body. */
  declaredBytes: number | null;
  /** The header's value as it came. */
  config: string | undefined;
  step: number | null;
  /** A digest, or `*`. */
  ifMatch: string | null;
  allow: string[];
  /** Lower-case hex that the whole body must have. */
  sha256: string | null;
  wait: 'staged' | 'active';
  /** For what comes after the last byte: stage and activate. */
  timeoutMs: number;
}

const MEDIA_TYPES = ['application/octet-stream', 'application/vnd.safetensors'];
const CHECKS_TO_WAIVE = ['zero_effect'];
const TIMEOUT_MS_DEFAULT = 30_000;
const TIMEOUT_MS_MAX = 600_000;
const UNIT_MS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000 };

export function readAsked(raw: Pick<IncomingMessage, 'headers' | 'headersDistinct'>, query: unknown): Asked {
  const { headers, headersDistinct } = raw;
  requireMediaType(headersDistinct['content-type'] ?? []);
  const encoding = headers['content-encoding'];
  if (encoding !== undefined) {
    throw refused(
      'unsupported_encoding',
      'content-encoding',
      'no content-encoding: tensors are sent as they are',
      encoding,
    );
  }
  const parameters = (query ?? {}) as Record<string, unknown>;
  return {
    declaredBytes: readLength(headers),
    config: one(headers[HEADER.config], HEADER.config),
    step: readStep(one(headers[HEADER.step], HEADER.step)),
    ifMatch: readIfMatch(headers['if-match']),
    allow: readAllow(one(headers[HEADER.allow], HEADER.allow)),
    sha256: readContentDigest(one(headers[HEADER.contentDigest], HEADER.contentDigest)),
    wait: readWait(parameters.wait),
    timeoutMs: readTimeout(parameters.timeout),
  };
}

function requireMediaType(values: string[]): void {
  const [value] = values;
  if (value === undefined || (values.length === 1 && MEDIA_TYPES.includes(value))) return;
  throw refused(
    'unsupported_media_type',
    'content-type',
    `${MEDIA_TYPES.join(' or ')}, or none`,
    values.join(', '),
  );
}

function readLength(headers: IncomingMessage['headers']): number | null {
  const length = headers['content-length'];
  const coding = headers['transfer-encoding'];
  if (coding !== undefined) {
    if (coding.toLowerCase() === 'chunked') return null;
    throw refused('unsupported_encoding', 'transfer-encoding', 'chunked', coding);
  }
  if (length === undefined) {
    throw new LorikeetError('length_required', 'Expected Content-Length, or Transfer-Encoding: chunked.', {
      field: 'content-length',
    });
  }
  return Number(length);
}

function readStep(value: string | undefined): number | null {
  if (value === undefined) return null;
  const step = Number(value);
  if (/^[0-9]{1,16}$/.test(value) && Number.isSafeInteger(step)) return step;
  throw refused('malformed_request', HEADER.step, 'a whole number', value);
}

function readIfMatch(value: string | undefined): string | null {
  if (value === undefined) return null;
  const digest = /^"(.*)"$/.exec(value)?.[1];
  if (value === '*') return value;
  if (digest !== undefined && DIGEST_PATTERN.test(digest)) return digest;
  throw refused('malformed_request', 'if-match', '"sha256:<64 hex digits>" in quotes, or *', value);
}

function readAllow(value: string | undefined): string[] {
  const checks = (value ?? '')
    .split(',')
    .map((check) => check.trim())
    .filter((check) => check !== '');
  const unknown = checks.find((check) => !CHECKS_TO_WAIVE.includes(check));
  if (unknown === undefined) return checks;
  throw refused('malformed_request', HEADER.allow, CHECKS_TO_WAIVE.join(', '), unknown);
}

function readContentDigest(value: string | undefined): string | null {
  if (value === undefined) return null;
  const base64 = /(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*(?:,|$)/.exec(value)?.[1];
  if (base64 !== undefined) return Buffer.from(base64, 'base64').toString('hex');
  throw refused('malformed_request', HEADER.contentDigest, 'sha-256=:<base64 of 32 bytes>:', value);
}

function readWait(value: unknown): 'staged' | 'active' {
  if (value === undefined) return 'active';
  if (value === 'staged' || value === 'active') return value;
  throw refused('malformed_request', 'wait', 'staged or active', value);
}

function readTimeout(value: unknown): number {
  if (value === undefined) return TIMEOUT_MS_DEFAULT;
  const [, number, unit] = /^([0-9]{1,6})(ms|s|m)$/.exec(String(value)) ?? [];
  const timeoutMs = Number(number) * (UNIT_MS[unit ?? ''] ?? Number.NaN);
  if (timeoutMs >= 1 && timeoutMs <= TIMEOUT_MS_MAX) return timeoutMs;
  throw refused('malformed_request', 'timeout', '1ms to 10m, such as 30s', value);
}

function one(value: string | string[] | undefined, field: string): string | undefined {
  if (!Array.isArray(value)) return value;
  throw refused('malformed_request', field, 'one value', value.length);
}

function refused(
  code: 'malformed_request' | 'unsupported_media_type' | 'unsupported_encoding',
  field: string,
  expected: string,
  value: unknown,
): LorikeetError {
  const actual = String(value).slice(0, 80);
  return new LorikeetError(code, `Expected ${expected} for ${field} but received ${JSON.stringify(actual)}`, {
    field,
    expected,
    actual,
  });
}
