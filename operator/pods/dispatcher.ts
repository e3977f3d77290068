import { Agent } from 'undici';
import { CONNECTIONS_MAX } from './client.ts';

const CONNECT_MS = 3_000;
/** A pod sends a config with the tensors that it gives back, as large as it takes one: see CONFIG_BYTES_MAX and base64url. */
const HEADERS_BYTES_MAX = 64 * 1024;

/** What calls to pods go out through; `connections` are of each pod. */
export function openDispatcher(): Agent {
  return new Agent({
    connections: CONNECTIONS_MAX,
    maxHeaderSize: HEADERS_BYTES_MAX,
    connect: { timeout: CONNECT_MS },
  });
}
