import { createHmac } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { AddressGuard } from './address-guard.ts';
import { endpointOf } from './endpoint.ts';
import {
  type NewObject,
  OBJECTS,
  type ObjectKey,
  type ObjectStore,
  type Span,
  type StoredObject,
} from './port.ts';
import { prefixOf } from './s3-location.ts';
import { caOf, type ReadAccess, type Values } from './secret-access.ts';
import { Retryable, type SourcedAdapter, type SourceError, Terminal } from './types.ts';
import { bodyOf, failureOfStatus, rangeHeader, sizeIn, Web, type WebAnswer, type WebRequest } from './web.ts';

/** What a Secret holds for one account; at most one of key and sas. */
export interface AzureAccess {
  /** In base64, as the portal shows it. */
  accountKey: string | null;
  sas: URLSearchParams | null;
  ca: string | null;
}

export interface AzureOptions {
  readAccess: ReadAccess<AzureAccess>;
  guard: AddressGuard;
  date: () => Date;
}

interface Location {
  account: string;
  container: string;
  /** Empty, or ends with a slash. */
  prefix: string;
  endpoint: string;
  versionId: string | null;
}

const API_VERSION = '2021-08-06';
const URI = /^az:\/\/([a-z0-9]{3,24})\/([a-z0-9](?:-?[a-z0-9]){2,62})(?:\/(.*))?$/s;

/** az:// : blobs of an Azure storage account. */
export async function openAzure(
  adapter: SourcedAdapter,
  { readAccess, guard, date }: AzureOptions,
  signal: AbortSignal,
): Promise<ObjectStore> {
  const location = locationOf(adapter);
  const { credentialsSecretRef } = adapter.spec.source.objectStore ?? {};
  const { namespace = '' } = adapter.metadata;
  const secret = credentialsSecretRef && { namespace, name: credentialsSecretRef.name };
  const access = secret === undefined ? null : await readAccess(secret, signal);
  return new AzureStore(new Web(guard, access?.ca ?? null), location, { access, date });
}

class AzureStore implements ObjectStore {
  readonly #web: Web;
  readonly #location: Location;
  readonly #access: AzureAccess | null;
  readonly #date: () => Date;

  constructor(web: Web, location: Location, how: { access: AzureAccess | null; date: () => Date }) {
    this.#web = web;
    this.#location = location;
    this.#access = how.access;
    this.#date = how.date;
  }

  async head(key: ObjectKey, signal: AbortSignal): Promise<StoredObject> {
    const answer = await this.#web.send(this.#requestOf('HEAD', key, {}), signal);
    if (answer.status !== 200) throw this.#failure(answer, key);
    const version = /^"([!#-+\--~]{1,200})"$/.exec(answer.headers.etag ?? '')?.[1];
    const size = sizeIn(answer.headers['content-length']);
    if (version === undefined || size === null) {
      const message = `The source names no strong ETag and size for ${this.#nameOf(key)}.`;
      throw new Terminal('SourceInvalid', message);
    }
    return { key, version, size };
  }

  async open(object: StoredObject, span: Span, signal: AbortSignal): Promise<Readable> {
    const pinned = { 'if-match': `"${object.version}"`, ...rangeHeader(span) };
    const answer = await this.#web.send(this.#requestOf('GET', object.key, pinned), signal);
    if (answer.status >= 400) {
      answer.body.destroy();
      throw this.#failure(answer, object.key);
    }
    return bodyOf(answer, object, span, this.#nameOf(object.key));
  }

  /** Put Blob: what comes to less than its length is no blob. */
  async write({ key, size, body }: NewObject, signal: AbortSignal): Promise<void> {
    const what = { 'content-length': String(size), 'x-ms-blob-type': 'BlockBlob' };
    const answer = await this.#web.send({ ...this.#requestOf('PUT', key, what), body }, signal);
    answer.body.destroy();
    if (answer.status !== 201) throw this.#failure(answer, key);
  }

  close(): void {
    this.#web.close();
  }

  #requestOf(method: WebRequest['method'], key: ObjectKey, more: Record<string, string>): WebRequest {
    const { account, versionId } = this.#location;
    const { accountKey = null, sas = null } = this.#access ?? {};
    const url = this.#urlOf(key);
    if (key === OBJECTS.tensors && versionId !== null) url.searchParams.set('versionid', versionId);
    for (const [name, value] of sas ?? []) url.searchParams.set(name, value);
    const headers = {
      ...more,
      'x-ms-date': this.#date().toUTCString(),
      'x-ms-version': API_VERSION,
    };
    const signed = accountKey === null ? {} : authorize({ method, url, headers }, { account, accountKey });
    return { method, url, name: this.#nameOf(key), follow: 'nowhere', headers: { ...headers, ...signed } };
  }

  #urlOf(key: ObjectKey): URL {
    const { endpoint, container, prefix } = this.#location;
    const base = endpoint.endsWith('/') ? endpoint : `${endpoint}/`;
    const path = [container, ...`${prefix}${key}`.split('/')].map(encodeURIComponent).join('/');
    return new URL(`${base}${path}`);
  }

  #nameOf(key: ObjectKey): string {
    const { account, container, prefix } = this.#location;
    return `az://${account}/${container}/${prefix}${key}`;
  }

  #failure({ status, headers }: WebAnswer, key: ObjectKey): SourceError {
    const { account, container } = this.#location;
    const isPublic = !this.#access?.accountKey && !this.#access?.sas;
    const way = isPublic ? 'Nothing signs the request: spec.source names no credentialsSecretRef.' : '';
    switch (headers['x-ms-error-code']) {
      case 'ContainerNotFound':
        return new Retryable('SourceNotFound', `There is no container ${container} in account ${account}.`);
      case 'PublicAccessNotPermitted':
        return failureOfStatus(403, this.#nameOf(key), way);
      default:
        return failureOfStatus(status, this.#nameOf(key), way);
    }
  }
}

/** Throws Terminal SourceInvalid, and never repeats a value that may hold a secret. */
function locationOf({ spec }: SourcedAdapter): Location {
  const { uri = '', endpoint, versionId } = spec.source.objectStore ?? {};
  const [, account, container, path = ''] = URI.exec(uri) ?? [];
  if (account === undefined || container === undefined)
    throw new Terminal('SourceInvalid', 'Expected a uri of the form az://account/container/prefix/.');
  return {
    account,
    container,
    prefix: prefixOf(path),
    endpoint: endpointOf(endpoint) ?? `https://${account}.blob.core.windows.net/`,
    versionId: versionId || null,
  };
}

interface Unsigned {
  method: string;
  url: URL;
  headers: Record<string, string>;
}

/** Shared Key, as Azure Storage wants it since 2015-02-21: these standard headers in this order, empty where there is none. */
function authorize(
  { method, url, headers }: Unsigned,
  { account, accountKey }: { account: string; accountKey: string },
): { authorization: string } {
  const standard = [
    'content-encoding',
    'content-language',
    'content-length',
    'content-md5',
    'content-type',
    'date',
    'if-modified-since',
    'if-match',
    'if-none-match',
    'if-unmodified-since',
    'range',
  ].map((name) => headers[name] ?? '');
  const own = Object.entries(headers).filter(([name]) => name.startsWith('x-ms-'));
  const query = [...url.searchParams].map(([name, value]) => `${name.toLowerCase()}:${value}`);
  const text = [
    method,
    ...standard,
    ...own.map(([name, value]) => `${name}:${value}`).sort(),
    `/${account}${url.pathname}`,
    ...query.sort(),
  ].join('\n');
  const signature = createHmac('sha256', Buffer.from(accountKey, 'base64')).update(text).digest('base64');
  return { authorization: `SharedKey ${account}:${signature}` };
}

export function azureAccessIn(secret: Values, name: string): AzureAccess {
  const accountKey = (secret.accountKey ?? secret.AZURE_STORAGE_KEY)?.trim();
  const sas = (secret.sasToken ?? secret.AZURE_STORAGE_SAS_TOKEN)?.trim();
  const ca = caOf(secret, name);
  if (accountKey) return { accountKey, sas: null, ca };
  if (sas) return { accountKey: null, sas: new URLSearchParams(sas), ca };
  throw new Retryable(
    'CredentialsNotFound',
    `Expected the key accountKey (or AZURE_STORAGE_KEY), or sasToken (or AZURE_STORAGE_SAS_TOKEN), in Secret ${name}.`,
  );
}
