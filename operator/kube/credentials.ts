import { readFileSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { KubeConfig } from '@kubernetes/client-node';
import { parse } from 'yaml';
import type { Clock } from './clock.ts';
import type { Log } from './log.ts';

/** What the TLS side of a connection needs; absent parts are Node's defaults. */
export interface TlsMaterial {
  ca?: string;
  cert?: string;
  key?: string;
  servername?: string;
  rejectUnauthorized?: false;
}

export interface Credentials {
  /** URL of the API server, without a trailing slash. */
  readonly server: string;
  /** The Authorization header, or null. `again`: the last one was refused, so read it anew. */
  authorization(again?: boolean): Promise<string | null>;
  /** Changes identity only when a file behind it has changed. */
  tls(): Promise<TlsMaterial>;
}

export class KubeconfigError extends Error {
  readonly code = 'kubeconfig_unusable';

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'KubeconfigError';
  }
}

/** The kubelet renews a token at 80 % of its life, ten minutes at the least; so does the file by our side. */
const FRESH_MS = 60_000;

/**
 * `path`, or the default: KUBECONFIG, ~/.kube/config, or the pod's own ServiceAccount. `context`, or the one that it says is
 * current. Its cluster is one that can be called.
 */
export function loadKubeconfig(path: string | undefined, context?: string): KubeConfig {
  const config = new KubeConfig();
  try {
    if (path === undefined) config.loadFromDefault();
    else config.loadFromFile(path);
  } catch (error) {
    throw new KubeconfigError('the kubeconfig cannot be read', { cause: error });
  }
  if (context !== undefined) config.setCurrentContext(context);
  const cluster = config.getCurrentCluster();
  if (cluster === null) {
    throw new KubeconfigError(`the kubeconfig names no cluster for context "${config.getCurrentContext()}"`);
  }
  // What the library makes up where it finds nothing.
  if (cluster.server === 'http://localhost:8080' && cluster.name === 'cluster') {
    throw new KubeconfigError(
      'there is neither a kubeconfig (KUBECONFIG, ~/.kube/config) nor a ServiceAccount token',
    );
  }
  if (cluster.proxyUrl) throw new KubeconfigError('a kubeconfig with proxy-url is not supported');
  return config;
}

export function credentialsFromKubeconfig(path: string | undefined, clock: Clock, log: Log): Credentials {
  return credentialsOf(loadKubeconfig(path), path, { clock, log });
}

/** `path`: where it was loaded from. */
export function credentialsOf(
  config: KubeConfig,
  path: string | undefined,
  { clock, log }: Surroundings,
): Credentials {
  const tokenFile = tokenFileOf(config, path ?? process.env.KUBECONFIG ?? '');
  return new FileCredentials(config, tokenFile, { clock, log });
}

/** `users[].user.tokenFile`, which client-go honours and the library's parser drops. */
function tokenFileOf(config: KubeConfig, paths: string): string | null {
  const user = config.getCurrentUser();
  const inCluster: unknown = user?.authProvider?.config?.tokenFile;
  if (typeof inCluster === 'string') return inCluster;
  for (const file of paths.split(':').filter((path) => path !== '')) {
    const raw = parse(readFileSync(file, 'utf8')) as {
      users?: { name: string; user?: { tokenFile?: string } }[];
    };
    const tokenFile = raw.users?.find(({ name }) => name === user?.name)?.user?.tokenFile;
    if (tokenFile) return resolve(dirname(file), tokenFile);
  }
  return null;
}

interface Surroundings {
  clock: Clock;
  log: Log;
}

/** A value that is read when asked for, at most once a minute and once at a time; the last good one outlives a failure. */
class Fresh<T> {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #read: (previous: T | null) => Promise<T>;
  #value: { value: T; readMs: number } | null = null;
  #reading: Promise<T> | null = null;

  constructor({ clock, log }: Surroundings, read: (previous: T | null) => Promise<T>) {
    this.#clock = clock;
    this.#log = log;
    this.#read = read;
  }

  async get(again: boolean): Promise<T> {
    const known = this.#value;
    if (known !== null && !again && this.#clock.monotonicMs() - known.readMs < FRESH_MS) return known.value;
    this.#reading ??= this.#readOrKeep(known).finally(() => {
      this.#reading = null;
    });
    return this.#reading;
  }

  async #readOrKeep(known: { value: T } | null): Promise<T> {
    try {
      const value = await this.#read(known?.value ?? null);
      this.#value = { value, readMs: this.#clock.monotonicMs() };
      return value;
    } catch (error) {
      // A file is absent for a moment while it is replaced: the last good content is still the best there is.
      if (known === null) throw new KubeconfigError('the credentials cannot be read', { cause: error });
      this.#log.warn({ err: error }, 'the credentials cannot be read anew; the last good ones stay');
      return known.value;
    }
  }
}

class FileCredentials implements Credentials {
  readonly server: string;
  readonly #config: KubeConfig;
  readonly #tokenFile: string | null;
  readonly #authorization: Fresh<string | null>;
  readonly #tls: Fresh<TlsMaterial>;
  #tlsStamp = '';

  constructor(config: KubeConfig, tokenFile: string | null, surroundings: Surroundings) {
    this.#config = config;
    this.#tokenFile = tokenFile;
    this.server = (config.getCurrentCluster()?.server ?? '').replace(/\/+$/, '');
    this.#authorization = new Fresh(surroundings, () => this.#readAuthorization());
    this.#tls = new Fresh(surroundings, (previous) => this.#readTls(previous));
  }

  authorization(again = false): Promise<string | null> {
    return this.#authorization.get(again);
  }

  tls(): Promise<TlsMaterial> {
    return this.#tls.get(false);
  }

  async #readAuthorization(): Promise<string | null> {
    if (this.#tokenFile !== null) {
      const token = (await readFile(this.#tokenFile, 'utf8')).trim();
      if (token === '') throw new KubeconfigError(`the token file ${this.#tokenFile} is empty`);
      return `Bearer ${token}`;
    }
    const user = this.#config.getCurrentUser();
    if (user?.token) return `Bearer ${user.token}`;
    if (user?.username)
      return `Basic ${Buffer.from(`${user.username}:${user.password ?? ''}`).toString('base64')}`;
    if (!user?.exec && !user?.authProvider) return null;
    // The library runs exec and OIDC plugins, and keeps what they say until it expires.
    const options: { headers?: { Authorization?: string } } = {};
    await this.#config.applyToHTTPSOptions(options);
    return options.headers?.Authorization ?? null;
  }

  async #stampOfFiles(): Promise<string> {
    const cluster = this.#config.getCurrentCluster();
    const user = this.#config.getCurrentUser();
    const files = [cluster?.caFile, user?.certFile, user?.keyFile].filter((file) => typeof file === 'string');
    const stats = await Promise.all(files.map((file) => stat(file)));
    return stats.map(({ mtimeMs, ino }) => `${mtimeMs}/${ino}`).join(' ');
  }

  async #readTls(previous: TlsMaterial | null): Promise<TlsMaterial> {
    const stamp = await this.#stampOfFiles();
    if (previous !== null && stamp === this.#tlsStamp) return previous;
    const cluster = this.#config.getCurrentCluster();
    const user = this.#config.getCurrentUser();
    const [ca, cert, key] = await Promise.all([
      pem(cluster?.caFile, cluster?.caData),
      pem(user?.certFile, user?.certData),
      pem(user?.keyFile, user?.keyData),
    ]);
    this.#tlsStamp = stamp;
    return {
      ...(ca && { ca }),
      ...(cert && { cert }),
      ...(key && { key }),
      ...(cluster?.tlsServerName && { servername: cluster.tlsServerName }),
      ...(cluster?.skipTLSVerify && { rejectUnauthorized: false as const }),
    };
  }
}

async function pem(file: string | undefined, base64: string | undefined): Promise<string | undefined> {
  if (file) return readFile(file, 'utf8');
  return base64 ? Buffer.from(base64, 'base64').toString('utf8') : undefined;
}
