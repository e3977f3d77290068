import { buildConnector } from 'undici';
import type { CaFile } from './ca-file.ts';
import type { KeyPair } from './tls-files.ts';

/** Whom a client trusts, and what it shows to who asks. */
export interface ClientTls {
  ca: Pick<CaFile, 'current'>;
  /** What it shows; absent: nothing. */
  pair?: () => KeyPair;
  /** Whom the other side must be; absent or null: who its address says. */
  serverName?: () => string | null;
}

/** For an undici Agent: new connections trust and show what the files hold then. */
export function connectorOf(
  { ca, pair, serverName }: ClientTls,
  timeoutMs: number,
): buildConnector.connector {
  // A session that goes on would not ask anew who is there.
  const fixed = { timeout: timeoutMs, allowH2: false, maxCachedSessions: 0 };
  return (options, callback) => {
    ca.current().then(
      (pem) => {
        const servername = serverName?.() ?? options.servername;
        const connect = buildConnector({ ...fixed, ...pair?.(), ca: pem });
        connect({ ...options, ...(servername && { servername }) }, callback);
      },
      (error: Error) => callback(error, null),
    );
  };
}
