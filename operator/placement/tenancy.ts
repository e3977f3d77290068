import { matchesSelector } from '../api/label-selector.ts';
import type { LoraAdapter } from '../api/lora-adapter.ts';
import type { ServerPool } from '../api/server-pool.ts';

/** `unknown`: the labels of the namespace have not been read yet; nothing is done and nothing undone until they are. */
export type Standing = 'allowed' | 'refused' | 'unknown';

type Labels = Record<string, string>;

/**
 * Whether an adapter may be in the pool that it names. Its own namespace's always; another one's where the pool, which
 * is the grant, takes adapters from there. Pure.
 *
 *   spec.tenancy.namespaces.from | the adapter's namespace | answer
 *   -----------------------------|-------------------------|-------------------------
 *   anything, or no pool         | the pool's              | allowed
 *   Same, or no pool             | another                 | refused
 *   All                          | another                 | allowed
 *   Selector                     | another                 | whether its labels match
 */
export function standingOf(
  adapter: LoraAdapter,
  pool: ServerPool | undefined,
  labelsOf: (namespace: string) => Labels | 'unknown' | null,
): Standing {
  const { namespace = '' } = adapter.metadata;
  const poolNamespace = adapter.spec.poolRef.namespace ?? namespace;
  if (poolNamespace === namespace) return 'allowed';
  const { from = 'Same', selector } = pool?.spec.tenancy?.namespaces ?? {};
  if (from === 'All') return 'allowed';
  if (from !== 'Selector' || selector === undefined) return 'refused';
  const labels = labelsOf(namespace);
  if (labels === 'unknown') return 'unknown';
  return labels !== null && matchesSelector(selector, labels) ? 'allowed' : 'refused';
}

export function usesNamespaceLabels(pool: ServerPool): boolean {
  return pool.spec.tenancy?.namespaces?.from === 'Selector';
}
