import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AdapterFiles } from '../../support/adapter-files.ts';
import { sendFile, WebServer } from './web-server.ts';

/**
 * The resolve protocol of the Hugging Face Hub, as its client library reads it: small files come from the hub itself, by
 * way of a relative redirect; large ones from a store whose signed URLs take no token; each answer tells the commit. A
 * repository that the token may not see is answered like one that is not there.
 */
export class FakeHub {
  readonly hub: WebServer;
  readonly cdn: WebServer;
  token: string | null = null;
  gated = false;
  folder = '';
  readonly #commits = new Map<string, AdapterFiles>();
  #main = '';

  static async start(): Promise<FakeHub> {
    return new FakeHub(await WebServer.start(), await WebServer.start());
  }

  private constructor(hub: WebServer, cdn: WebServer) {
    this.hub = hub;
    this.cdn = cdn;
    hub.answer = (request, response) => this.#answer(request, response);
    cdn.answer = (request, response) => {
      const url = new URL(request.url ?? '', cdn.url);
      const signed = url.searchParams.get('signature') === 'canary';
      const files = this.#commits.get(url.pathname.slice(1));
      if (!signed || request.headers.authorization || !files) return void response.writeHead(403).end();
      sendFile(request, response, { bytes: files.tensors, headers: { etag: '"of-the-store"' } });
    };
  }

  /** Moves main on; returns the commit. */
  commit(files: AdapterFiles): string {
    const count = String(this.#commits.size);
    this.#main = createHash('sha1').update(count).digest('hex');
    this.#commits.set(this.#main, files);
    return this.#main;
  }

  async stop(): Promise<void> {
    await Promise.all([this.hub.stop(), this.cdn.stop()]);
  }

  #answer(request: IncomingMessage, response: ServerResponse): unknown {
    const refuse = (status: number, code: string) =>
      void response.writeHead(status, { 'x-error-code': code, 'content-length': 0 }).end();
    const { pathname } = new URL(request.url ?? '', this.hub.url);
    const match = /^\/(cache\/)?example\/sql\/resolve\/([^/]+)\/(.*)$/.exec(pathname);
    const isKnown = this.token === null || request.headers.authorization === `Bearer ${this.token}`;
    if (!match || !isKnown) return refuse(401, 'RepoNotFound');
    if (this.gated) return refuse(403, 'GatedRepo');
    const [, cache, revision = '', file = ''] = match;
    const commit = revision === 'main' ? this.#main : revision;
    const files = this.#commits.get(commit);
    if (!files) return refuse(404, 'RevisionNotFound');
    const told = { 'x-repo-commit': commit };
    if (file === `${this.folder}adapter_config.json`) {
      const etag = `W/"${createHash('sha1').update(files.config).digest('hex')}"`;
      if (cache)
        return sendFile(request, response, {
          bytes: files.config,
          headers: { etag, ...told },
          ranges: false,
        });
      return void response
        .writeHead(307, { location: `/cache${pathname}`, ...told, 'content-length': 0 })
        .end();
    }
    if (file !== `${this.folder}adapter_model.safetensors`) return refuse(404, 'EntryNotFound');
    response.writeHead(302, {
      ...told,
      location: `${this.cdn.url}/${commit}?signature=canary`,
      'x-linked-etag': `"${createHash('sha256').update(files.tensors).digest('hex')}"`,
      'x-linked-size': files.tensors.length,
      'content-length': 0,
    });
    return response.end();
  }
}
