/**
 * The headers of admin calls and pushes: what pods and operator take in them, and what is sent. Readers throw the
 * refusal; writers return what to spread into the headers of a message.
 */

import { isIP } from 'node:net';
import { DIGEST_PATTERN, type Fence, HEADER, InFlight, RELAY_PODS_MAX } from './adapter-api.ts';
import { canonicalJson } from './digest.ts';
import { expected } from './errors.ts';
import { type Expectation, parseExpectation } from './expectation.ts';
import { fenceText } from './fence.ts';

type Fields = Readonly<Record<string, string | string[] | undefined>>;

const WAIVABLE = ['zero_effect'];
/** How long a request may wait for the revision that it expects. */
export const EXPECT_WAIT_MS_MAX = 60_000;

/** The value as it came; several of them as one list. */
function textOf(fields: Fields, name: string): string | undefined {
  const value = fields[name];
  return Array.isArray(value) ? value.join(', ') : value;
}

/** Not decoded: where it is absent, the body or what is known of the adapter may hold the config. */
export function readConfig(fields: Fields): string | undefined {
  return textOf(fields, HEADER.config);
}

/** The bytes of adapter_config.json; padding is taken too. */
export function decodeConfig(value: string): Buffer {
  const unpadded = value.replace(/={1,2}$/, '');
  if (/^[A-Za-z0-9_-]+$/.test(unpadded) && unpadded.length % 4 !== 1)
    return Buffer.from(unpadded, 'base64url');
  throw expected('malformed_config', HEADER.config, 'base64url of adapter_config.json', value);
}

export function writeConfig(config: unknown): { [HEADER.config]: string } {
  return { [HEADER.config]: Buffer.from(canonicalJson(config)).toString('base64url') };
}

export function readStep(fields: Fields): number | null {
  const value = textOf(fields, HEADER.step);
  if (value === undefined) return null;
  if (/^\d{1,15}$/.test(value)) return Number(value);
  throw expected('malformed_request', HEADER.step, 'a whole number of at most 15 digits', value);
}

export function writeStep(step: number | null): Record<string, string> {
  return step === null ? {} : { [HEADER.step]: String(step) };
}

export function readFence(fields: Fields): Fence | null {
  const value = textOf(fields, HEADER.fence);
  if (value === undefined) return null;
  const [, term, sequence] = /^(\d{1,15})\.(\d{1,15})$/.exec(value) ?? [];
  if (term !== undefined) return { term: Number(term), sequence: Number(sequence) };
  throw expected('malformed_request', HEADER.fence, '<term>.<sequence>', value);
}

export function writeFence(fence: Fence): Record<string, string> {
  return { [HEADER.fence]: fenceText(fence) };
}

/** The checks that the caller waives. Empty elements are skipped, as in any list of HTTP. */
export function readAllow(fields: Fields): string[] {
  const checks = (textOf(fields, HEADER.allow) ?? '').split(',').map((check) => check.trim());
  const unknown = checks.find((check) => check !== '' && !WAIVABLE.includes(check));
  if (unknown === undefined) return checks.filter((check) => check !== '');
  throw expected('malformed_request', HEADER.allow, WAIVABLE.join(', '), unknown);
}

export function writeAllow(checks: readonly string[]): Record<string, string> {
  return checks.length === 0 ? {} : { [HEADER.allow]: checks.join(',') };
}

/**
 * The pods that an upload is to be passed on to, each as `http://10.1.2.3:8001`; empty without. Whoever may upload may
 * make the pod call them, so that only what an admin API can be at is let through: an address, not a name, and the port of
 * the pod's own.
 */
/** `scheme` null: the pod passes nothing on. */
export function readRelay(
  fields: Fields,
  { scheme, port }: { scheme: 'http' | 'https' | null; port: number },
): string[] {
  const value = textOf(fields, HEADER.relay);
  if (value === undefined) return [];
  const urls = value.split(',').map((item) => item.trim());
  if (scheme === null)
    throw expected('malformed_request', HEADER.relay, 'none without --relay-ca-file', value);
  const own = { scheme, port: String(port) };
  const want = `at most ${RELAY_PODS_MAX} addresses as ${scheme}://10.1.2.3:${port}`;
  const isRight = urls.length <= RELAY_PODS_MAX && urls.every((url) => isAdminUrl(url, own));
  if (isRight && new Set(urls).size === urls.length) return urls;
  throw expected('malformed_request', HEADER.relay, want, value);
}

export function writeRelay(urls: readonly string[]): Record<string, string> {
  return urls.length === 0 ? {} : { [HEADER.relay]: urls.join(',') };
}

function isAdminUrl(text: string, own: { scheme: string; port: string }): boolean {
  const [, scheme, host = '', port] = /^(https?):\/\/([\d.]+|\[[\da-f:]+\]):(\d{1,5})$/.exec(text) ?? [];
  const address = host.replace(/^\[|\]$/g, '');
  return isIP(address) !== 0 && !isOffPods(address) && scheme === own.scheme && port === own.port;
}

/** No pod has one of these: none at all, link-local (where clouds keep their metadata), multicast. */
function isOffPods(address: string): boolean {
  return /^(0\.|169\.254\.|2(2[4-9]|[3-5]\d)\.|::$|fe[89ab]|ff|::ffff:)/i.test(address);
}

export function readInFlight(fields: Fields): InFlight {
  const value = textOf(fields, HEADER.inFlight);
  const found = value === undefined ? 'Finish' : InFlight.options.find((option) => option === value);
  if (found !== undefined) return found;
  throw expected('malformed_request', HEADER.inFlight, InFlight.options.join(' or '), value);
}

/** Which revision may answer; null where the client takes any. */
export function readExpectation(fields: Fields): Expectation | null {
  const value = textOf(fields, HEADER.expect);
  if (value === undefined) return null;
  const expectation = parseExpectation(value);
  if (expectation !== null) return expectation;
  const want = 'revision=<at least 6 hexadecimal digits> or min_step=<whole number>';
  throw expected('malformed_request', HEADER.expect, want, value);
}

export function readWaitMs(fields: Fields): number | null {
  const value = textOf(fields, HEADER.waitMs);
  if (value === undefined) return null;
  if (/^\d{1,5}$/.test(value) && Number(value) <= EXPECT_WAIT_MS_MAX) return Number(value);
  throw expected('malformed_request', HEADER.waitMs, `0 to ${EXPECT_WAIT_MS_MAX}`, value);
}

/** The digest that must be current, `*` for any, null for no check. */
export function readIfMatch(fields: Fields): string | null {
  const value = textOf(fields, 'if-match');
  if (value === undefined) return null;
  if (value === '*') return value;
  const digest = /^"([^"]*)"$/.exec(value)?.[1];
  if (digest !== undefined && DIGEST_PATTERN.test(digest)) return digest;
  throw expected('malformed_request', 'if-match', '"sha256:<64 hexadecimal digits>" or *', value);
}

export interface WantedEvents {
  takesChanges: boolean;
  /** Of the last event that the client had; null: none. */
  lastId: string | null;
}

/** What is not understood is not taken: whole states are right for everybody. */
export function readWatch(fields: Fields): WantedEvents {
  const takesChanges = textOf(fields, HEADER.watch) === 'changes';
  return { takesChanges, lastId: textOf(fields, 'last-event-id') ?? null };
}

export function writeWatch(lastId: string | null): Record<string, string> {
  return { [HEADER.watch]: 'changes', ...(lastId ? { 'last-event-id': lastId } : {}) };
}

/** Lower-case hex of the SHA-256 that the whole body must have (RFC 9530). */
export function readContentDigest(fields: Fields): string | null {
  const value = textOf(fields, HEADER.contentDigest);
  if (value === undefined) return null;
  const base64 = /(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*(?:[,;]|$)/.exec(value)?.[1];
  if (base64 !== undefined) return Buffer.from(base64, 'base64').toString('hex');
  throw expected('malformed_request', HEADER.contentDigest, 'sha-256=:<base64 of 32 bytes>:', value);
}

/** Refuses a body of another SHA-256, in lower-case hex, than `content-digest` announced. */
export function requireContentDigest(announced: string | null, sha256: string): void {
  if (announced === null || announced === sha256) return;
  throw expected('digest_mismatch', HEADER.contentDigest, announced, sha256);
}

/** Null where the body comes in chunks. */
export function readContentLength(fields: Fields): number | null {
  const coding = textOf(fields, 'transfer-encoding');
  if (coding?.toLowerCase() === 'chunked') return null;
  if (coding !== undefined) throw expected('unsupported_encoding', 'transfer-encoding', 'chunked', coding);
  const length = textOf(fields, 'content-length');
  if (length !== undefined) return Number(length);
  throw expected('length_required', 'content-length', 'a body of announced length, or chunks', length);
}

/** Takes one of `types`, literally; none at all too, as `curl -T` sends none. */
export function requireContentType(fields: Fields, types: readonly string[]): void {
  const encoding = textOf(fields, 'content-encoding');
  if (encoding !== undefined) {
    throw expected(
      'unsupported_encoding',
      'content-encoding',
      'none: bodies are taken as they are',
      encoding,
    );
  }
  const value = textOf(fields, 'content-type');
  if (value === undefined || types.includes(value)) return;
  throw expected('unsupported_media_type', 'content-type', `${types.join(' or ')}, or none`, value);
}

/** `bytes` null: in chunks. */
export function writeContent(type: string, bytes: number | null): Record<string, string> {
  return { 'content-type': type, ...(bytes === null ? {} : { 'content-length': String(bytes) }) };
}
