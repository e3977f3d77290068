import { ADAPTER_FINALIZER, LORA_ADAPTERS, type LoraAdapter } from '../api/lora-adapter.ts';
import { REFRESHED_ANNOTATION } from '../api/names.ts';
import { isApiError } from '../kube/api-error.ts';
import { listAll } from '../kube/list.ts';
import { pathOf } from '../kube/resource.ts';
import type { Rest } from '../kube/rest.ts';

/** Writes to metadata and reads past the cache. Spec is never written. */
export class Objects {
  readonly #rest: Rest;

  constructor(rest: Rest) {
    this.#rest = rest;
  }

  async addFinalizer(adapter: LoraAdapter): Promise<void> {
    const finalizers = [...(adapter.metadata.finalizers ?? []), ADAPTER_FINALIZER];
    await this.#patch(adapter, { resourceVersion: adapter.metadata.resourceVersion, finalizers });
  }

  async removeFinalizer(adapter: LoraAdapter): Promise<void> {
    const finalizers = (adapter.metadata.finalizers ?? []).filter((name) => name !== ADAPTER_FINALIZER);
    await this.#patch(adapter, { resourceVersion: adapter.metadata.resourceVersion, finalizers });
  }

  async noteRefreshed(adapter: LoraAdapter, value: string): Promise<void> {
    await this.#patch(adapter, { annotations: { [REFRESHED_ANNOTATION]: value } });
  }

  /** The object as the API server has it now; null where it is gone, or another one has its name. */
  async live(adapter: LoraAdapter): Promise<LoraAdapter | null> {
    const { namespace, name, uid } = adapter.metadata;
    try {
      const path = pathOf(LORA_ADAPTERS, { namespace, name });
      const found = await this.#rest.request<LoraAdapter>({ method: 'GET', path });
      return found.metadata.uid === uid ? found : null;
    } catch (error) {
      if (isApiError(error, 404)) return null;
      throw error;
    }
  }

  /** All adapters of a namespace, or of all of them, as the API server has them now. */
  async liveIn(namespace: string | undefined, signal: AbortSignal): Promise<LoraAdapter[]> {
    const { objects } = await listAll<LoraAdapter>({
      rest: this.#rest,
      resource: LORA_ADAPTERS,
      namespace,
      labelSelector: undefined,
      signal,
    });
    return objects;
  }

  async #patch(adapter: LoraAdapter, metadata: object): Promise<void> {
    const { namespace, name } = adapter.metadata;
    try {
      await this.#rest.request({
        method: 'PATCH',
        path: pathOf(LORA_ADAPTERS, { namespace, name }),
        body: { metadata },
      });
    } catch (error) {
      if (!isApiError(error, 404)) throw error;
    }
  }
}
