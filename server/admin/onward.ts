import { Agent } from 'undici';
import type { CaFile } from '../transfer/ca-file.ts';
import { connectorOf } from '../transfer/client-tls.ts';
import type { RelayLimits } from '../transfer/relay.ts';
import type { TlsFiles } from '../transfer/tls-files.ts';

/** To one pod at the same time, and how long each may take to connect. */
const RELAYS_MAX = 16;
const CONNECT_MS = 3_000;

/** How bodies go on to other pods. */
export interface Onward {
  dispatcher: Agent;
  /** Of the pods' addresses: that of this pod's own; null: none is passed on. */
  scheme: 'http' | 'https' | null;
  /** Whether others of the pool may be expected to take what comes from here. */
  isHopeful: () => boolean;
  limits: Partial<RelayLimits>;
}

interface OnwardOptions {
  tls: TlsFiles | null;
  relayCa: CaFile | null;
  limits: Partial<RelayLimits> | undefined;
}

/**
 * Over TLS a pod knows the others by what they share: a certificate of the CA, for the name that its own is for. It shows its own
 * to those that ask for one. What came to it encrypted does not go on in plain text.
 */
export function openOnward({ tls, relayCa, limits = {} }: OnwardOptions): Onward {
  if (tls === null) {
    const dispatcher = new Agent({ connections: RELAYS_MAX, connect: { timeout: CONNECT_MS } });
    return { dispatcher, scheme: 'http', isHopeful: () => true, limits };
  }
  if (relayCa === null) return { dispatcher: new Agent(), scheme: null, isHopeful: () => false, limits };
  const shown = { ca: relayCa, pair: () => tls.pair, serverName: () => tls.serverName };
  const connect = connectorOf(shown, CONNECT_MS);
  return {
    dispatcher: new Agent({ connections: RELAYS_MAX, connect, allowH2: false }),
    scheme: 'https',
    isHopeful: () => tls.isKnownToItsLike,
    limits,
  };
}
