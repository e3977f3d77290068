import type { IncomingHttpHeaders } from 'node:http';
import { AdapterName, DIGEST_PATTERN, type Fence, HEADER, NAME_PATTERN } from '../contract/adapter-api.ts';
import { type ErrorCode, LorikeetError } from '../contract/errors.ts';
import { brief } from '../contract/strict-json.ts';

export function readName(name: string): string {
  if (AdapterName.safeParse(name).success) return name;
  throw refusal('invalid_name', 'name', `at most 128 characters that match ${NAME_PATTERN.source}`, name);
}

export function readDigest(digest: string): string {
  if (DIGEST_PATTERN.test(digest)) return digest;
  throw refusal('malformed_request', 'digest', 'sha256: and 64 hexadecimal digits', digest);
}

export function readStep(headers: IncomingHttpHeaders): number | null {
  const value = single(headers, HEADER.step);
  if (value === undefined) return null;
  if (/^\d{1,15}$/.test(value)) return Number(value);
  throw refusal('malformed_request', HEADER.step, 'a whole number of at most 15 digits', value);
}

export function readFence(headers: IncomingHttpHeaders): Fence | null {
  const value = single(headers, HEADER.fence);
  if (value === undefined) return null;
  const [, term, sequence] = /^(\d{1,15})\.(\d{1,15})$/.exec(value) ?? [];
  if (term !== undefined) return { term: Number(term), sequence: Number(sequence) };
  throw refusal('malformed_request', HEADER.fence, '<term>.<sequence>', value);
}

/** True where the caller waives the check for adapters that change nothing. */
export function readAllowZeroEffect(headers: IncomingHttpHeaders): boolean {
  const value = single(headers, HEADER.allow);
  if (value === undefined) return false;
  const checks = value.split(',').map((check) => check.trim());
  if (checks.every((check) => check === 'zero_effect')) return true;
  throw refusal('malformed_request', HEADER.allow, 'zero_effect', value);
}

/** The digest that must be current, `*` for any, undefined for no check. */
export function readIfMatch(headers: IncomingHttpHeaders): string | undefined {
  const value = single(headers, 'if-match');
  if (value === undefined || value === '*') return value;
  const digest = /^"([^"]*)"$/.exec(value)?.[1];
  if (digest !== undefined && DIGEST_PATTERN.test(digest)) return digest;
  throw refusal('malformed_request', 'if-match', '"sha256:<64 hexadecimal digits>" or *', value);
}

/** Refuses bytes other than those that `content-digest` (RFC 9530) announced. */
export function requireContentDigest(headers: IncomingHttpHeaders, sha256: Buffer): void {
  const value = single(headers, HEADER.contentDigest);
  if (value === undefined) return;
  const announced = /(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):/.exec(value)?.[1];
  if (announced === undefined) {
    throw refusal('malformed_request', HEADER.contentDigest, 'sha-256=:<base64>:', value);
  }
  const actual = sha256.toString('base64');
  if (announced !== actual) throw refusal('digest_mismatch', HEADER.contentDigest, announced, actual);
}

/** Null where the body comes in chunks. */
export function readContentLength(headers: IncomingHttpHeaders): number | null {
  if (headers['transfer-encoding'] !== undefined) return null;
  const value = headers['content-length'];
  if (value === undefined) {
    throw refusal('length_required', 'content-length', 'a body of announced length, or chunks', null);
  }
  return Number(value);
}

/** `type` is the only literal that is taken; none at all is taken too, as `curl -T` sends none. */
export function requireMediaType(headers: IncomingHttpHeaders, type: string): void {
  const encoding = headers['content-encoding'];
  if (encoding !== undefined) {
    throw refusal('unsupported_encoding', 'content-encoding', 'none: bodies are taken as they are', encoding);
  }
  const value = headers['content-type'];
  if (value !== undefined && value !== type) {
    throw refusal('unsupported_media_type', 'content-type', `${type} or none`, value);
  }
}

export function single(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value.join(', ') : value;
}

function refusal(code: ErrorCode, field: string, expected: string, value: unknown): LorikeetError {
  const actual = brief(value);
  return new LorikeetError(code, `Expected ${expected} for ${field} but received ${JSON.stringify(actual)}`, {
    field,
    expected,
    actual,
  });
}
