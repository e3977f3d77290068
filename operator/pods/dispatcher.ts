import { Agent } from 'undici';
import { CONNECTIONS_MAX } from './client.ts';

export const CONNECT_MS = 3_000;
/** A pod sends a config with the tensors that it gives back, as large as it takes one: see CONFIG_BYTES_MAX and base64url. */
const HEADERS_BYTES_MAX = 64 * 1024;

/** `connections` are of each pod. */
export const POD_AGENT = { connections: CONNECTIONS_MAX, maxHeaderSize: HEADERS_BYTES_MAX };

/** What calls to pods go out through. */
export function openDispatcher(): Agent {
  return new Agent({ ...POD_AGENT, connect: { timeout: CONNECT_MS } });
}
