import { ConfigError } from '../contract/flags.ts';

/** One that names no file of clients' CAs asks clients for no certificate. */
export interface TlsPaths {
  cert: string;
  key: string;
  clientCa: string | null;
}

/** By flag, in this order: certificate, key, and where there is such a flag the clients' CA. Null: no TLS. */
export function readTlsPaths(flags: Record<string, string | null>): TlsPaths | null {
  const [[certFlag, cert], [keyFlag, key], clientCa] = Object.entries(flags) as [Entry, Entry, Entry?];
  if (cert !== null && key !== null) return { cert, key, clientCa: clientCa?.[1] ?? null };
  if (cert !== null) throw new ConfigError(`--${certFlag} needs --${keyFlag}`);
  if (key !== null) throw new ConfigError(`--${keyFlag} needs --${certFlag}`);
  if (clientCa?.[1]) throw new ConfigError(`--${clientCa[0]} needs --${certFlag}`);
  return null;
}

type Entry = [flag: string, value: string | null];
