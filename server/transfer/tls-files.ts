import assert from 'node:assert';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import type { Server as HttpServer, ServerOptions } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Server, type TlsOptions } from 'node:tls';
import { ConfigError } from '../contract/flags.ts';
import type { TlsPaths } from './tls-flags.ts';

/** How soon a changed file is seen. Kubernetes swaps a link above the files, of which watches of the files hear nothing. */
const LOOK_MS = 2_000;
/** Handshakes that take longer are cut, as headers are that do not come. */
const HANDSHAKE_MS = 10_000;
/** Of a certificate's extended key usages. */
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';
const MIN_VERSION = 'TLSv1.2';

interface TlsLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface KeyPair {
  cert: string;
  key: string;
}

interface Material extends KeyPair {
  ca?: string;
}

/** A server's certificate, its key, and who may sign clients' certificates, read again when a file changes. */
export class TlsFiles {
  readonly #paths: TlsPaths;
  readonly #lookMs: number;
  #material: Material;
  #stamp: string;

  /** Throws ConfigError where they cannot be used. */
  static async read(paths: TlsPaths, lookMs = LOOK_MS): Promise<TlsFiles> {
    try {
      const stamp = await stampOf(paths);
      return new TlsFiles({ paths, lookMs }, await readMaterial(paths), stamp);
    } catch (cause) {
      throw new ConfigError(reasonOf(cause), { cause });
    }
  }

  private constructor(
    { paths, lookMs }: { paths: TlsPaths; lookMs: number },
    material: Material,
    stamp: string,
  ) {
    this.#paths = paths;
    this.#lookMs = lookMs;
    this.#material = material;
    this.#stamp = stamp;
  }

  /** A client without a certificate of the CA does not come past the handshake: no byte of a request is read from it. */
  get options(): TlsOptions {
    const asksClients = this.#paths.clientCa !== null;
    return {
      ...this.#material,
      ...{ requestCert: asksClients, rejectUnauthorized: asksClients },
      minVersion: MIN_VERSION,
      handshakeTimeout: HANDSHAKE_MS,
    };
  }

  /** For servers that ask who calls. */
  get pair(): KeyPair {
    const { cert, key } = this.#material;
    return { cert, key };
  }

  /** Whether a server that asks clients for certificates, as this one may, would take its own. */
  get isKnownToItsLike(): boolean {
    const usages = new X509Certificate(this.#material.cert).keyUsage as string[] | undefined;
    return this.#paths.clientCa === null || usages === undefined || usages.includes(CLIENT_AUTH);
  }

  /** A name that the certificate is for, by which others that have the same know its server; null: there is none. */
  get serverName(): string | null {
    const [, name] =
      /\bDNS:([^,\s"]+)/.exec(new X509Certificate(this.#material.cert).subjectAltName ?? '') ?? [];
    return name?.replace('*', 'any') ?? null;
  }

  /** Gives the server what the files hold, until it closes. Connections that stand keep what they began with. */
  follow(server: HttpServer | Server, log: TlsLog): void {
    assert(server instanceof Server);
    let looking = false;
    const timer = setInterval(async () => {
      if (looking) return;
      looking = true;
      await this.#look(server, log);
      looking = false;
    }, this.#lookMs).unref();
    server.once('close', () => clearInterval(timer));
    // Node closes what had begun a request by then, and would wait for ever for one that comes out of its handshake later.
    server.on('secureConnection', (socket) => void (server.listening || socket.destroy()));
  }

  async #look(server: Server, log: TlsLog): Promise<void> {
    const stamp = await stampOf(this.#paths);
    if (stamp === this.#stamp) return;
    // Also of files that cannot be used: they are told of once, and read again when they change.
    this.#stamp = stamp;
    const { cert } = this.#paths;
    try {
      this.#material = await readMaterial(this.#paths);
      server.setSecureContext({ ...this.#material, minVersion: MIN_VERSION });
      log.info({ cert, until: new X509Certificate(this.#material.cert).validTo }, 'took the new certificate');
    } catch (error) {
      log.warn({ cert, reason: reasonOf(error) }, 'kept the old certificate: the new one cannot be used');
    }
  }
}

/** For Fastify, whose types make another app of one that speaks TLS; nothing here depends on the difference. */
export function listenerOptions(
  tls: TlsFiles | null | undefined,
  http: ServerOptions,
): { http: ServerOptions } {
  if (tls === null || tls === undefined) return { http };
  return { http, https: { ...http, ...tls.options } } as { http: ServerOptions };
}

/** The URL of a server that listens, as its callers write it. */
export function urlOf(server: HttpServer): string {
  const { address, family, port } = server.address() as AddressInfo;
  const scheme = server instanceof Server ? 'https' : 'http';
  return `${scheme}://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
}

async function readMaterial({ cert, key, clientCa }: TlsPaths): Promise<Material> {
  const material = await readKeyPair({ cert, key });
  if (clientCa === null) return material;
  const ca = await readFile(clientCa, 'utf8');
  requireCertificates(ca, clientCa);
  return { ...material, ca };
}

export async function readKeyPair(paths: { cert: string; key: string }): Promise<KeyPair> {
  const pair = { cert: await readFile(paths.cert, 'utf8'), key: await readFile(paths.key, 'utf8') };
  requirePair(pair, paths);
  return pair;
}

/** `where`: what the certificate and the key were read from. */
export function requirePair(pair: KeyPair, where: KeyPair): void {
  const certificate = parsed(where.cert, 'a certificate', () => new X509Certificate(pair.cert));
  const key = parsed(where.key, 'a private key', () => createPrivateKey(pair.key));
  if (!certificate.checkPrivateKey(key)) throw new Error(`${where.key} is not the key of ${where.cert}`);
}

const PEM_BLOCK = /-----BEGIN CERTIFICATE-----.*?(?:-----END CERTIFICATE-----|$)/gs;

/** Node's TLS passes over what it cannot read, so that a broken one would look like a stranger on the other side. */
export function requireCertificates(pem: string, where: string): void {
  const blocks = pem.match(PEM_BLOCK) ?? [];
  if (blocks.length === 0) throw new Error(`${where} holds no certificate in PEM`);
  for (const block of blocks) parsed(where, 'certificates', () => new X509Certificate(block));
}

/** What OpenSSL says of it would help nobody. */
function parsed<T>(where: string, what: string, parse: () => T): T {
  try {
    return parse();
  } catch {
    throw new Error(`${where} does not hold ${what} in PEM`);
  }
}

async function stampOf({ cert, key, clientCa }: TlsPaths): Promise<string> {
  const paths = [cert, key, ...(clientCa === null ? [] : [clientCa])];
  const stats = await Promise.all(paths.map((path) => stat(path).catch(() => null)));
  return stats.map((file) => (file ? `${file.ino} ${file.ctimeMs} ${file.size}` : 'none')).join(', ');
}

function reasonOf(error: unknown): string {
  const { code, path, message } = error as NodeJS.ErrnoException;
  return code !== undefined && path !== undefined ? `${path} cannot be read: ${code}` : message;
}
