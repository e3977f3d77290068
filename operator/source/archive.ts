import { canonicalJson } from '../../server/contract/digest.ts';
import type { SpooledRevision } from '../spool/spool.ts';
import { OBJECTS, type ObjectKey, type OpenStore } from './port.ts';
import { type SourcedAdapter, SourceError, Terminal } from './types.ts';

/**
 * Pushed revisions in an object store, each in a folder that has the digits of its digest for a name: once there, never
 * written again. Nothing is ever removed; that is for a rule of the bucket.
 *
 *   URI/<digits of the digest>/adapter_model.safetensors
 *   URI/<digits of the digest>/adapter_config.json           written last: without it there is no revision
 */
export class Archive {
  readonly #open: OpenStore;

  constructor(open: OpenStore) {
    this.#open = open;
  }

  /** Rejects with a SourceError, or the reason of the signal. */
  async keep(folder: SourcedAdapter, revision: SpooledRevision, signal: AbortSignal): Promise<void> {
    const store = await this.#open(folder, signal);
    try {
      if (store.write === undefined)
        throw new Terminal('SourceInvalid', 'Expected an object store that can be written to.');
      const has = (key: ObjectKey) => isThere(store.head(key, signal));
      if ((await has(OBJECTS.config)) && (await has(OBJECTS.tensors))) return;
      const config = Buffer.from(canonicalJson(revision.config));
      const { size } = revision;
      await store.write({ key: OBJECTS.tensors, size, body: revision.stream() }, signal);
      await store.write({ key: OBJECTS.config, size: config.length, body: [config] }, signal);
    } finally {
      store.close();
    }
  }
}

/** Where a pushed revision lies, as an adapter that is fetched; null where pushes are kept in memory alone. */
export function archiveOf({ metadata, spec }: SourcedAdapter, digest: string): SourcedAdapter | null {
  const { objectStore } = spec.source.push ?? {};
  if (objectStore === undefined) return null;
  const folder = `${objectStore.uri.replace(/\/$/, '')}/${digest.replace(/^sha256:/, '')}/`;
  return { metadata, spec: { source: { objectStore: { ...objectStore, uri: folder } } } };
}

async function isThere(head: Promise<unknown>): Promise<boolean> {
  return head.then(
    () => true,
    (error: unknown) => {
      if (error instanceof SourceError && error.reason === 'SourceNotFound') return false;
      throw error;
    },
  );
}
