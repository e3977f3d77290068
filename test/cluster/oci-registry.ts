import { generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { type Issued, TestCa } from '../support/certificates.ts';
import { eventually } from '../support/eventually.ts';
import { toolPath } from '../support/tools.ts';
import { freePort } from './free-port.ts';
import { type RunningProcess, startProcess } from './process.ts';

const SERVICE = 'registry.test';
const ISSUER = 'tokens.test';
const USER = { username: 'puller', password: 'canary' };

/**
 * A real OCI registry, CNCF's distribution, on a folder of its own and over TLS, and the token server that it sends clients
 * to: who shows the user gets a token that says what was asked for, and the registry reads what it says.
 */
export class OciRegistry {
  readonly ca = new TestCa();
  readonly user = USER;
  readonly host: string;
  readonly #dir: string;
  readonly #tokens: Server;
  readonly #key: KeyObject;
  #process: RunningProcess | null = null;

  static async start(): Promise<OciRegistry> {
    const dir = await mkdtemp(join(tmpdir(), 'lorikeet-registry-'));
    const registry = new OciRegistry(dir, `127.0.0.1:${await freePort()}`);
    await registry.#start();
    return registry;
  }

  private constructor(dir: string, host: string) {
    this.#dir = dir;
    this.host = host;
    this.#key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    this.#tokens = createServer((request, response) => this.#giveToken(request, response));
  }

  /** A token for one repository, as `actions` of the distribution's own words. */
  tokenFor(repository: string, actions: string[]): string {
    const now = Math.floor(Date.now() / 1000);
    const access = [{ type: 'repository', name: repository, actions }];
    const claims = { iss: ISSUER, sub: USER.username, aud: SERVICE, jti: randomUUID(), access };
    const text = [
      { typ: 'JWT', alg: 'ES256', kid: 'test' },
      { ...claims, iat: now, nbf: now - 10, exp: now + 300 },
    ]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.');
    const signature = sign('sha256', Buffer.from(text), { key: this.#key, dsaEncoding: 'ieee-p1363' });
    return `${text}.${signature.toString('base64url')}`;
  }

  async stop(): Promise<void> {
    await this.#process?.stop(2_000);
    this.#tokens.closeAllConnections();
    this.#tokens.close();
    this.ca.remove();
    await rm(this.#dir, { recursive: true, force: true });
  }

  async #start(): Promise<void> {
    const pair = this.ca.issue('IP:127.0.0.1');
    this.#tokens.setSecureContext(pair);
    await once(this.#tokens.listen(0, '127.0.0.1'), 'listening');
    const config = await this.#configure(pair);
    const args = ['serve', config];
    const logFile = join(this.#dir, 'log');
    this.#process = await startProcess({ command: toolPath('registry'), args, logFile });
    const { port } = new URL(`https://${this.host}`);
    await eventually('the registry listens', { timeoutMs: 20_000, everyMs: 50 }, async () => {
      if (this.#process?.exit) throw new Error(this.#process.logTail());
      const socket = connect(Number(port), '127.0.0.1');
      await once(socket, 'connect');
      socket.destroy();
      return true;
    });
  }

  async #configure({ cert, key }: Issued): Promise<string> {
    const path = (name: string) => join(this.#dir, name);
    const { port } = this.#tokens.address() as AddressInfo;
    const { kty, crv, x, y } = this.#key.export({ format: 'jwk' });
    await writeFile(path('crt'), cert);
    await writeFile(path('key'), key);
    await writeFile(path('jwks'), JSON.stringify({ keys: [{ kty, crv, x, y, kid: 'test', use: 'sig' }] }));
    const realm = `https://127.0.0.1:${port}/token`;
    const config = {
      version: 0.1,
      storage: { filesystem: { rootdirectory: path('data') } },
      http: { addr: this.host, tls: { certificate: path('crt'), key: path('key') } },
      auth: { token: { realm, service: SERVICE, issuer: ISSUER, jwks: path('jwks') } },
    };
    await writeFile(path('config.yml'), stringify(config));
    return path('config.yml');
  }

  #giveToken({ url = '', headers }: IncomingMessage, response: ServerResponse): void {
    const { searchParams } = new URL(url, 'https://tokens.test');
    const [, repository, actions] = /^repository:(.+):([a-z,]+)$/.exec(searchParams.get('scope') ?? '') ?? [];
    const basic = Buffer.from(`${USER.username}:${USER.password}`).toString('base64');
    const isUser = headers.authorization === `Basic ${basic}` && searchParams.get('service') === SERVICE;
    if (!isUser || repository === undefined || actions === undefined) response.writeHead(401).end();
    else response.end(JSON.stringify({ token: this.tokenFor(repository, actions.split(',')) }));
  }
}
