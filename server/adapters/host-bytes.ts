import type { BoundAdapter } from '../contract/format/bind.ts';

/** Names, digest, the registry's and the tier's records of a revision, and the buffers' own. */
const ENTRY_BYTES = 4096;
/** Of one bound module: three objects and their places in a list. */
const MODULE_BYTES = 256;

export interface Sizes {
  bodyBytes: number;
  configBytes: number;
  bound: BoundAdapter;
}

/** What a revision takes of the process's memory, as test/server/adapters/host-bytes.test.ts measures it. */
export function hostBytesOf({ bodyBytes, configBytes, bound }: Sizes): number {
  const warningBytes = bound.warnings.reduce((sum, { length }) => sum + length, 0);
  return bodyBytes + configBytes + warningBytes + bound.modules.length * MODULE_BYTES + ENTRY_BYTES;
}
