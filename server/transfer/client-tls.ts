import { buildConnector } from 'undici';
import type { CaFile } from './ca-file.ts';
import type { KeyPair } from './tls-files.ts';

/** Whom a client trusts, and what it shows to who asks. */
export interface ClientTls {
  /** Absent or null: whom the system trusts. */
  ca?: Pick<CaFile, 'current'> | null;
  /** Absent: nothing. */
  pair?: (() => KeyPair | Promise<KeyPair>) | undefined;
  /** Whom the other side must be; absent or null: who its address says. */
  serverName?: () => string | null;
}

/** For an undici Agent: new connections trust and show what the files hold then. */
export function connectorOf(tls: ClientTls, timeoutMs: number): buildConnector.connector {
  // A session that goes on would not ask anew who is there.
  const fixed = { timeout: timeoutMs, allowH2: false, maxCachedSessions: 0 };
  return (options, callback) => {
    materialOf(tls).then(
      (material) => {
        const servername = tls.serverName?.() ?? options.servername;
        const connect = buildConnector({ ...fixed, ...material });
        connect({ ...options, ...(servername && { servername }) }, callback);
      },
      (error: Error) => callback(error, null),
    );
  };
}

async function materialOf({ ca, pair }: ClientTls): Promise<Partial<KeyPair> & { ca?: string }> {
  return { ...(await pair?.()), ...(ca && { ca: await ca.current() }) };
}
