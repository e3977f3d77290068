import type { ConnectionOptions } from 'node:tls';
import { Agent, buildConnector } from 'undici';
import { requireCertificates, requirePair } from '../../server/transfer/tls-files.ts';
import type { ServerPool } from '../api/server-pool.ts';
import type { Clock } from '../kube/clock.ts';
import { type ReadSecret, SecretForbidden } from '../kube/secrets.ts';
import { CONNECT_MS, POD_AGENT } from './dispatcher.ts';

const TIMEOUT_MS = 5_000;
const REREAD_MS = 60_000;
const FAILED_REREAD_MS = 1_000;

/** Whom the operator trusts, and what it shows where it has to. */
export type PodTls = Pick<ConnectionOptions, 'ca' | 'cert' | 'key'>;

/** Reads the Secrets that the pool names, in the pool's own namespace; throws where they are not there or cannot be used. */
export function readPodTls(readSecret: ReadSecret): (pool: ServerPool) => Promise<PodTls> {
  return async ({ metadata, spec }) => {
    const { caSecretRef, clientCertSecretRef } = spec.admin.tls ?? {};
    if (caSecretRef === undefined) throw new Error('the pool names no CA');
    const valuesOf = async (name: string) => {
      const secret = await readSecret(metadata.namespace ?? '', name, AbortSignal.timeout(TIMEOUT_MS)).catch(
        (error: unknown) => {
          // What caused it says less than its own words.
          throw error instanceof SecretForbidden ? new Error(error.message) : error;
        },
      );
      if (secret === null) throw new Error(`there is no Secret ${name}`);
      return secret;
    };
    const ca = textUnder(await valuesOf(caSecretRef.name), caSecretRef);
    requireCertificates(ca, `${caSecretRef.key} of Secret ${caSecretRef.name}`);
    if (clientCertSecretRef === undefined) return { ca };
    const { name } = clientCertSecretRef;
    const values = await valuesOf(name);
    const pair = {
      cert: textUnder(values, { name, key: 'tls.crt' }),
      key: textUnder(values, { name, key: 'tls.key' }),
    };
    requirePair(pair, { cert: `tls.crt of Secret ${name}`, key: `tls.key of Secret ${name}` });
    return { ca, ...pair };
  };
}

function textUnder(secret: Record<string, string>, { name, key }: { name: string; key: string }): string {
  const value = secret[key];
  if (!value) throw new Error(`Secret ${name} has nothing under ${key}`);
  return value;
}

/**
 * What one pool's pods are called with, read from its Secrets for new connections: every minute, and sooner after one that
 * failed, as it does where pods have a new CA already. What cannot be read or used does not take the last good one away.
 */
export class TlsSource {
  readonly #read: () => Promise<PodTls>;
  readonly #clock: Clock;
  #tls: PodTls | null = null;
  #readAt = Number.NEGATIVE_INFINITY;
  #reading: Promise<PodTls> | null = null;
  #inDoubt = false;

  constructor(read: () => Promise<PodTls>, clock: Clock) {
    this.#read = read;
    this.#clock = clock;
  }

  async current(): Promise<PodTls> {
    const freshMs = this.#inDoubt ? FAILED_REREAD_MS : REREAD_MS;
    if (this.#tls !== null && this.#clock.monotonicMs() - this.#readAt < freshMs) return this.#tls;
    this.#reading ??= this.#reread();
    try {
      return await this.#reading;
    } catch (error) {
      if (this.#tls === null) throw error;
      return this.#tls;
    }
  }

  connected(error: Error | null): void {
    this.#inDoubt = error !== null;
  }

  async #reread(): Promise<PodTls> {
    try {
      const tls = await this.#read();
      this.#tls = tls;
      return tls;
    } finally {
      this.#readAt = this.#clock.monotonicMs();
      this.#reading = null;
    }
  }
}

/** For one pod. It is called by its address, and must be who `serverName` says: its address tells nobody who it is. */
export function openTlsDispatcher(source: TlsSource, serverName: string): Agent {
  const connect: buildConnector.connector = (options, callback) => {
    source.current().then(
      (tls) => {
        // A session that goes on would not ask anew who is there.
        const fixed = { timeout: CONNECT_MS, allowH2: false, maxCachedSessions: 0 };
        buildConnector({ ...tls, ...fixed })({ ...options, servername: serverName }, (...[error, socket]) => {
          source.connected(error);
          if (error === null) callback(null, socket);
          else callback(error, null);
        });
      },
      (error: Error) => callback(error, null),
    );
  };
  return new Agent({ ...POD_AGENT, connect, allowH2: false });
}
