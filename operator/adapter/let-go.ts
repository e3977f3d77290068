import { setTimeout as delay } from 'node:timers/promises';
import { ADAPTER_FINALIZER } from '../api/lora-adapter.ts';
import { isApiError } from '../kube/api-error.ts';
import type { Objects } from './objects.ts';

type Store = Pick<Objects, 'liveIn' | 'removeFinalizer'>;

/** An operator that ended a moment ago may have written once more. */
const QUIET_MS = 2_000;
const LOOKS_MAX = 10;

/**
 * Takes our finalizer off every LoraAdapter, whether it is being deleted or not. Pods keep what they serve. Only for when no
 * operator runs: it would put the finalizer on again. Answers how many it let go.
 */
export async function letAdaptersGo(
  objects: Store,
  namespace: string | undefined,
  quietMs = QUIET_MS,
): Promise<number> {
  let letGo = 0;
  for (let look = 0; look < LOOKS_MAX; look += 1) {
    if (look > 0) await delay(quietMs);
    const adapters = await adaptersIn(objects, namespace);
    const held = adapters.filter(({ metadata }) => metadata.finalizers?.includes(ADAPTER_FINALIZER));
    if (held.length === 0 && look > 0) return letGo;
    for (const adapter of held) {
      try {
        await objects.removeFinalizer(adapter);
        letGo += 1;
      } catch (error) {
        // Somebody else wrote: the next look has it anew.
        if (!isApiError(error, 409)) throw error;
      }
    }
  }
  throw new Error(`Expected no LoraAdapter with ${ADAPTER_FINALIZER} but somebody puts it on again`);
}

/** None where the definition went with the chart. */
async function adaptersIn(objects: Store, namespace: string | undefined) {
  try {
    return await objects.liveIn(namespace, AbortSignal.timeout(60_000));
  } catch (error) {
    if (isApiError(error, 404)) return [];
    throw error;
  }
}
