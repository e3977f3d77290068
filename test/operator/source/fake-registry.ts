import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Issued } from '../../support/certificates.ts';
import { sendFile } from './web-server.ts';

export const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const USER = 'puller:canary';
const TOKEN = 'a.short-lived.token';

/** A registry and its token server, over TLS: answers only a request that shows what it asks for. */
export class FakeRegistry {
  readonly seen: { url: string; authorization: string | undefined }[] = [];
  /** Of the repository team/sql. */
  readonly manifests = new Map<string, Buffer>();
  readonly blobs = new Map<string, Buffer>();
  asksFor: 'nothing' | 'basic' | 'bearer' = 'nothing';
  /** Where it says that tokens are; default: here. */
  realm: string | null = null;
  /** Where it says that a blob is; default: here. */
  elsewhere: string | null = null;
  readonly #server: Server;

  static async start(pair: Issued): Promise<FakeRegistry> {
    const registry = new FakeRegistry(pair);
    await new Promise<void>((resolve) => registry.#server.listen(0, '127.0.0.1', resolve));
    return registry;
  }

  private constructor(pair: Issued) {
    this.#server = createServer(pair, (request, response) => this.#answer(request, response));
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** As `oras push` makes an artifact; returns the digest of its manifest. */
  push(tag: string, files: Record<string, Buffer>): string {
    const layers = Object.entries(files).map(([title, bytes]) => {
      const digest = digestOf(bytes);
      this.blobs.set(digest, bytes);
      const annotations = { 'org.opencontainers.image.title': title };
      return { mediaType: 'application/octet-stream', digest, size: bytes.length, annotations };
    });
    const config = {
      mediaType: 'application/vnd.oci.empty.v1+json',
      digest: digestOf(Buffer.from('{}')),
      size: 2,
    };
    return this.put(tag, { schemaVersion: 2, mediaType: MANIFEST_TYPE, config, layers });
  }

  put(tag: string, manifest: object): string {
    const bytes = Buffer.from(JSON.stringify(manifest));
    const digest = digestOf(bytes);
    this.manifests.set(tag, bytes).set(digest, bytes);
    return digest;
  }

  #answer(request: IncomingMessage, response: ServerResponse): unknown {
    const { url = '', headers } = request;
    this.seen.push({ url, authorization: headers.authorization });
    const { pathname, searchParams } = new URL(url, 'https://registry.test');
    if (pathname === '/token') return this.#giveToken(headers.authorization, searchParams, response);
    const [, kind, name = ''] = /^\/v2\/team\/sql\/(manifests|blobs)\/(.*)$/.exec(pathname) ?? [];
    if (kind !== undefined && !this.#isShown(headers.authorization)) return this.#challenge(response);
    if (kind === 'manifests' && headers.accept !== MANIFEST_TYPE) return response.writeHead(404).end();
    const bytes = (kind === 'manifests' ? this.manifests : this.blobs).get(name);
    if (bytes === undefined) return response.writeHead(404).end();
    if (kind === 'blobs' && this.elsewhere !== null)
      return response.writeHead(307, { location: `${this.elsewhere}/${name}` }).end();
    return sendFile(request, response, { bytes, headers: {} });
  }

  #isShown(authorization: string | undefined): boolean {
    if (this.asksFor === 'nothing') return true;
    return authorization === (this.asksFor === 'basic' ? basic(USER) : `Bearer ${TOKEN}`);
  }

  #challenge(response: ServerResponse): void {
    const realm = this.realm ?? `https://${this.host}/token`;
    const bearer = `Bearer realm="${realm}",service="registry.test",scope="repository:team/sql:pull"`;
    const challenge = this.asksFor === 'basic' ? 'Basic realm="registry"' : bearer;
    response.writeHead(401, { 'www-authenticate': challenge }).end();
  }

  #giveToken(authorization: string | undefined, asked: URLSearchParams, response: ServerResponse): void {
    const isRight =
      authorization === basic(USER) &&
      asked.get('service') === 'registry.test' &&
      asked.get('scope') === 'repository:team/sql:pull';
    if (isRight) response.end(JSON.stringify({ token: TOKEN, expires_in: 60 }));
    else response.writeHead(401).end();
  }
}

export const digestOf = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const basic = (user: string) => `Basic ${Buffer.from(user).toString('base64')}`;
