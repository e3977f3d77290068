import type { Readable } from 'node:stream';
import type { AddressGuard } from './address-guard.ts';
import { endpointOf } from './endpoint.ts';
import type { ObjectKey, ObjectStore, Span, StoredObject } from './port.ts';
import { caOf, type ReadAccess, type Values } from './secret-access.ts';
import { Retryable, type SourcedAdapter, type SourceError, Terminal } from './types.ts';
import { bodyOf, failureOfStatus, rangeHeader, sizeIn, Web, type WebAnswer } from './web.ts';

/** What a Secret holds for one hub. */
export interface HubAccess {
  token: string | null;
  ca: string | null;
}

export interface HubOptions {
  readAccess: ReadAccess<HubAccess>;
  guard: AddressGuard;
}

interface Location {
  endpoint: string;
  repo: string;
  revision: string;
  /** Empty, or ends with a slash. */
  folder: string;
}

export const HUB = 'https://huggingface.co/';
const REVISION = 'main';

/** A repository of a hub, by its files' resolve URLs. */
export async function openHub(
  { metadata, spec }: SourcedAdapter,
  { readAccess, guard }: HubOptions,
  signal: AbortSignal,
): Promise<ObjectStore> {
  const { repo = '', revision, path, endpoint, tokenSecretRef } = spec.source.huggingFace ?? {};
  const location = {
    endpoint: endpointOf(endpoint) ?? HUB,
    repo,
    revision: revision || REVISION,
    folder: folderOf(path ?? ''),
  };
  const { namespace = '' } = metadata;
  const secret = tokenSecretRef && { namespace, name: tokenSecretRef.name };
  const access = secret === undefined ? null : await readAccess(secret, signal);
  return new HubStore(new Web(guard, access?.ca ?? null), location, access?.token ?? null);
}

/**
 * A branch is read at the commit that it was at when it was looked at. The versions are those of the files, so that a commit
 * which touches neither is no change.
 */
class HubStore implements ObjectStore {
  readonly #web: Web;
  readonly #location: Location;
  readonly #token: string | null;
  readonly #commits = new Map<ObjectKey, string>();

  constructor(web: Web, location: Location, token: string | null) {
    this.#web = web;
    this.#location = location;
    this.#token = token;
  }

  async head(key: ObjectKey, signal: AbortSignal): Promise<StoredObject> {
    const url = this.#urlOf(key, this.#location.revision);
    // A redirect to the store behind the hub is the answer: its headers tell of the file.
    const request = { method: 'HEAD', url, name: this.#nameOf(key), follow: 'origin' } as const;
    const answer = await this.#web.send({ ...request, headers: this.#headers() }, signal);
    if (answer.status < 200 || answer.status > 399) throw this.#failure(answer, key);
    const { commit, version, size } = describedIn(answer);
    if (commit === null || version === null || size === null) {
      const message = `The hub names no commit, ETag and size for ${this.#nameOf(key)}.`;
      throw new Terminal('SourceInvalid', message);
    }
    this.#commits.set(key, commit);
    return { key, version, size };
  }

  async open(object: StoredObject, span: Span, signal: AbortSignal): Promise<Readable> {
    const name = this.#nameOf(object.key);
    const url = this.#urlOf(object.key, this.#commits.get(object.key) ?? this.#location.revision);
    const headers = { ...this.#headers(), ...rangeHeader(span) };
    const answer = await this.#web.send({ method: 'GET', url, name, follow: 'anywhere', headers }, signal);
    return bodyOf(answer, object, span, name);
  }

  close(): void {
    this.#web.close();
  }

  #headers(): Record<string, string> {
    return this.#token === null ? {} : { authorization: `Bearer ${this.#token}` };
  }

  #urlOf(key: ObjectKey, revision: string): URL {
    const { endpoint, repo, folder } = this.#location;
    const path = `${folder}${key}`.split('/').map(encodeURIComponent).join('/');
    const base = endpoint.endsWith('/') ? endpoint : `${endpoint}/`;
    return new URL(`${base}${repo}/resolve/${encodeURIComponent(revision)}/${path}`);
  }

  #nameOf(key: ObjectKey): string {
    const { repo, revision, folder } = this.#location;
    return `hf://${repo}@${revision}/${folder}${key}`;
  }

  #failure({ status, headers }: WebAnswer, key: ObjectKey): SourceError {
    const { repo, revision } = this.#location;
    const way =
      this.#token === null
        ? 'spec.source.huggingFace names no tokenSecretRef.'
        : 'May the token of tokenSecretRef read it?';
    switch (headers['x-error-code']) {
      case 'RepoNotFound':
        return new Retryable('SourceNotFound', `There is no repository ${repo}, or it is private. ${way}`);
      case 'RevisionNotFound':
        return new Retryable('SourceNotFound', `There is no revision ${revision} in repository ${repo}.`);
      case 'GatedRepo': {
        const message = `Repository ${repo} is gated: its terms are to be accepted by the owner of the token. ${way}`;
        return new Retryable('SourceAccessDenied', message);
      }
      default:
        return failureOfStatus(status, this.#nameOf(key), way);
    }
  }
}

function folderOf(path: string): string {
  const parts = path.split('/').filter((part) => part !== '');
  if (parts.some((part) => part === '.' || part === '..'))
    throw new Terminal('SourceInvalid', 'Expected a path without "." and "..".');
  return parts.map((part) => `${part}/`).join('');
}

function describedIn({ status, headers }: WebAnswer) {
  const told = (name: string) => [headers[name] ?? []].flat()[0];
  const etag = told('x-linked-etag') ?? headers.etag ?? '';
  const isRedirect = status >= 300;
  return {
    commit: /^[0-9a-f]{40}$/.exec(told('x-repo-commit') ?? '')?.[0] ?? null,
    version: /^(?:W\/)?"?([!#-+\--~]{1,200}?)"?$/.exec(etag)?.[1] ?? null,
    size: sizeIn(told('x-linked-size')) ?? (isRedirect ? null : sizeIn(headers['content-length'])),
  };
}

export function hubAccessIn(secret: Values, name: string): HubAccess {
  const token = secret.token ?? secret.HF_TOKEN;
  const ca = caOf(secret, name);
  if (token) return { token: token.trim(), ca };
  if (ca !== null) return { token: null, ca };
  throw new Retryable(
    'CredentialsNotFound',
    `Expected the key token (or HF_TOKEN), or ca.crt, in Secret ${name}.`,
  );
}
