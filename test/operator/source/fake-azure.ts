import { createHmac } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { sendFile, WebServer } from './web-server.ts';

const ACCOUNT = 'devaccount';
const KEY = Buffer.from('the key of an account, of no account').toString('base64');

/**
 * Blobs of one storage account, answered only to a request whose Shared Key signature, or whose SAS, is right. The text that
 * is signed is put together here line by line, as Microsoft's reference has it.
 */
export class FakeAzure {
  readonly account = ACCOUNT;
  readonly accountKey = KEY;
  readonly sas = 'sv=2021-08-06&sp=r&sig=a%2Bb%2Fc%3D';
  readonly server: WebServer;
  /** By container/name. */
  readonly blobs = new Map<string, { bytes: Buffer; etag: string }>();
  isPublic = false;

  static async start(): Promise<FakeAzure> {
    return new FakeAzure(await WebServer.start());
  }

  private constructor(server: WebServer) {
    this.server = server;
    server.answer = (request, response) => this.#answer(request, response);
  }

  /** As an emulator has it: the account is in the path. */
  get endpoint(): string {
    return `${this.server.url}/${ACCOUNT}`;
  }

  #answer(request: IncomingMessage, response: ServerResponse): unknown {
    const refuse = (status: number, code: string) =>
      response.writeHead(status, { 'x-ms-error-code': code, 'content-length': 0 }).end();
    const url = new URL(request.url ?? '', this.server.url);
    if (!this.isPublic && !this.#isSigned(request, url)) return refuse(403, 'AuthenticationFailed');
    const name = decodeURIComponent(url.pathname.slice(`/${ACCOUNT}/`.length));
    const [container = ''] = name.split('/');
    const isContainer = [...this.blobs.keys()].some((key) => key.startsWith(`${container}/`));
    if (!isContainer) return refuse(404, 'ContainerNotFound');
    if (request.method === 'PUT') return this.#put(name, request, response);
    const blob = this.blobs.get(name);
    if (!blob) return refuse(404, 'BlobNotFound');
    const { 'if-match': match } = request.headers;
    if (match !== undefined && match !== blob.etag) return refuse(412, 'ConditionNotMet');
    return sendFile(request, response, { bytes: blob.bytes, headers: { etag: blob.etag } });
  }

  /** A blob is there as a whole, or not at all. */
  async #put(name: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      return;
    }
    this.blobs.set(name, { bytes: Buffer.concat(chunks), etag: `"${this.blobs.size}"` });
    response.writeHead(201, { 'content-length': 0 }).end();
  }

  #isSigned({ method = '', headers }: IncomingMessage, url: URL): boolean {
    const permission = method === 'PUT' ? 'w' : 'r';
    if (url.searchParams.get('sig') === 'a+b/c=')
      return url.searchParams.get('sp')?.includes(permission) ?? false;
    const text =
      `${method}\n` +
      '\n\n' + // encoding, language
      `${headers['content-length'] ?? ''}\n` +
      '\n\n\n\n' + // MD5, type, date, if-modified-since
      `${headers['if-match'] ?? ''}\n` +
      '\n\n' + // if-none-match, if-unmodified-since
      `${headers.range ?? ''}\n` +
      (method === 'PUT' ? 'x-ms-blob-type:BlockBlob\n' : '') +
      `x-ms-date:${headers['x-ms-date']}\nx-ms-version:${headers['x-ms-version']}\n` +
      `/${ACCOUNT}${url.pathname}` +
      (url.searchParams.has('versionid') ? `\nversionid:${url.searchParams.get('versionid')}` : '');
    const signature = createHmac('sha256', Buffer.from(KEY, 'base64')).update(text).digest('base64');
    return headers.authorization === `SharedKey ${ACCOUNT}:${signature}`;
  }
}
