import { goodAdapter } from '../../support/adapter-files.ts';
import type { Harness } from './harness.ts';
import { loraAdapter } from './objects.ts';

/** Room for one adapter of the tests and not for two. */
export const ROOM = { hostBytes: Math.round(goodAdapter().tensors.length * 1.5) + 8 * 1024 };

export const created = (name: string, second: number) => ({
  name,
  metadata: { creationTimestamp: `2026-06-01T00:00:0${second}Z` },
});

export function fixed(
  { name, metadata = {} }: { name: string; metadata?: object },
  replicas: number | string,
  more: object = {},
) {
  return loraAdapter(name, { metadata, spec: { placement: { mode: 'Fixed', replicas, ...more } } });
}

/** Of pods that serve the adapter. */
export function holdersOf({ servers }: Harness, name: string): number[] {
  return servers.flatMap((server, index) => (server.currentOf(name) === null ? [] : [index]));
}
