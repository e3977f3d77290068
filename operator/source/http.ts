import type { IncomingHttpHeaders } from 'node:http';
import type { Readable } from 'node:stream';
import type { AddressGuard } from './address-guard.ts';
import { OBJECTS, type ObjectKey, type ObjectStore, type Span, type StoredObject } from './port.ts';
import { caOf, type ReadAccess, type Values } from './secret-access.ts';
import { Retryable, type SourcedAdapter, Terminal } from './types.ts';
import { bodyOf, failureOfStatus, rangeHeader, sizeIn, Web, type WebAnswer, type WebRequest } from './web.ts';

/** What a Secret holds for one server. */
export interface HttpAccess {
  authorization: string | null;
  ca: string | null;
}

export interface HttpOptions {
  readAccess: ReadAccess<HttpAccess>;
  guard: AddressGuard;
}

/** Of servers that know no HEAD, and of URLs that are signed for GET alone. */
const HEAD_REFUSED = new Set([403, 405, 501]);

/** http:// and https:// */
export async function openHttp(
  { metadata, spec }: SourcedAdapter,
  { readAccess, guard }: HttpOptions,
  signal: AbortSignal,
): Promise<ObjectStore> {
  const source = spec.source.http ?? { url: '', sha256: '' };
  const tensors = locationOf('url', source.url);
  const { configURL, credentialsSecretRef } = source;
  const config = configURL ? locationOf('configURL', configURL) : siblingOf(tensors, OBJECTS.config);
  const { namespace = '' } = metadata;
  const secret = credentialsSecretRef && { namespace, name: credentialsSecretRef.name };
  const access = secret === undefined ? null : await readAccess(secret, signal);
  const files = {
    [OBJECTS.tensors]: { url: tensors, sha256: source.sha256, field: 'spec.source.http.sha256' },
    [OBJECTS.config]: { url: config, sha256: source.configSha256, field: 'spec.source.http.configSha256' },
  };
  return new HttpStore(new Web(guard, access?.ca ?? null), files, access?.authorization ?? null);
}

type Files = Record<ObjectKey, { url: URL; sha256: string | undefined; field: string }>;

class HttpStore implements ObjectStore {
  readonly #web: Web;
  readonly #files: Files;
  readonly #authorization: string | null;

  constructor(web: Web, files: Files, authorization: string | null) {
    this.#web = web;
    this.#files = files;
    this.#authorization = authorization;
  }

  async head(key: ObjectKey, signal: AbortSignal): Promise<StoredObject> {
    let answer = await this.#web.send(this.#requestOf(key, 'HEAD', {}), signal);
    if (HEAD_REFUSED.has(answer.status)) {
      answer = await this.#web.send(this.#requestOf(key, 'GET', rangeHeader({ begin: 0, end: 1 })), signal);
      answer.body.destroy();
    }
    const { status, headers } = answer;
    if (status !== 200 && status !== 206) throw failureOfStatus(status, this.#nameOf(key), this.#way());
    const size = sizeOf(answer);
    if (size === null) {
      const message = `The source names no size (Content-Length) for ${this.#nameOf(key)}.`;
      throw new Terminal('SourceInvalid', message);
    }
    const isWhole = status === 200 && headers['accept-ranges'] !== 'bytes';
    const { sha256, field } = this.#files[key];
    const wanted = sha256 ? { wanted: { sha256, field } } : {};
    return { key, version: versionOf(headers, size), size, ...wanted, ...(isWhole && { isWhole }) };
  }

  async open(object: StoredObject, span: Span, signal: AbortSignal): Promise<Readable> {
    const range = object.isWhole ? {} : rangeHeader(span);
    const answer = await this.#web.send(this.#requestOf(object.key, 'GET', range), signal);
    const body = bodyOf(answer, object, span, this.#nameOf(object.key));
    if (versionOf(answer.headers, object.size) === object.version) return body;
    body.destroy();
    throw failureOfStatus(412, this.#nameOf(object.key));
  }

  close(): void {
    this.#web.close();
  }

  #requestOf(key: ObjectKey, method: 'GET' | 'HEAD', headers: Record<string, string>): WebRequest {
    const { url } = this.#files[key];
    // Those of the server that `url` names, and of no other.
    const isOfSecret = url.origin === this.#files[OBJECTS.tensors].url.origin;
    const authorization = isOfSecret && this.#authorization ? { authorization: this.#authorization } : {};
    const name = this.#nameOf(key);
    return { method, url, name, follow: 'anywhere', headers: { ...headers, ...authorization } };
  }

  #nameOf(key: ObjectKey): string {
    return nameOf(this.#files[key].url);
  }

  #way(): string {
    return this.#authorization === null ? 'spec.source.http names no credentialsSecretRef with a token.' : '';
  }
}

/** Throws Terminal SourceInvalid, and never repeats a value that may hold a secret. */
function locationOf(field: string, text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null;
  const isWeb = url?.protocol === 'http:' || url?.protocol === 'https:';
  if (url === null || !isWeb)
    throw new Terminal('SourceInvalid', `Expected an http or https URL for ${field}.`);
  if (url.username || url.password || url.hash)
    throw new Terminal('SourceInvalid', `Expected a ${field} without user, password and fragment.`);
  return url;
}

/** A file of the same folder, under the same query. */
function siblingOf(url: URL, file: string): URL {
  const sibling = new URL(url);
  sibling.pathname = url.pathname.replace(/[^/]*$/, file);
  return sibling;
}

/** For people: a query may hold a signature. */
export function nameOf({ origin, pathname }: URL): string {
  return `${origin}${pathname}`;
}

function sizeOf({ status, headers }: WebAnswer): number | null {
  const total = /^bytes 0-0\/([0-9]+)$/.exec(headers['content-range'] ?? '')?.[1];
  return sizeIn(status === 206 ? total : headers['content-length']);
}

/** The sha256 of the spec says what the tensors are; this only tells when to look, and that a reading is of one piece. */
function versionOf({ etag, 'last-modified': modified }: IncomingHttpHeaders, size: number): string {
  const told = etag ?? modified ?? '';
  return `${told
    .replace(/[^!-+\--~]/g, '')
    .replaceAll('"', '')
    .slice(0, 200)}-${size}`;
}

export function httpAccessIn(secret: Values, name: string): HttpAccess {
  const { token, username, password } = secret;
  const ca = caOf(secret, name);
  if (token) return { authorization: `Bearer ${token.trim()}`, ca };
  if (username && password) {
    const basic = Buffer.from(`${username.trim()}:${password.trim()}`).toString('base64');
    return { authorization: `Basic ${basic}`, ca };
  }
  if (ca !== null) return { authorization: null, ca };
  throw new Retryable(
    'CredentialsNotFound',
    `Expected the key token, or username and password, or ca.crt, in Secret ${name}.`,
  );
}
