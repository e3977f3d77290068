import { type LoraAdapter, servedNameOf } from '../api/lora-adapter.ts';
import { poolKeyOf } from '../api/names.ts';
import { ownerOfName } from './owner.ts';
import type { Standing } from './tenancy.ts';

export type AdapterIndex = 'pool' | 'name' | 'chosen' | 'guests';

/** What adapters are looked up by, so that a look at one does not go through all. */
export const ADAPTER_INDEXES: Record<AdapterIndex, (adapter: LoraAdapter) => string | null> = {
  pool: poolKeyOf,
  name: (adapter) => `${poolKeyOf(adapter)} ${servedNameOf(adapter)}`,
  /** By pool, those that do not go to every pod. */
  chosen: (adapter) => (goesEverywhere(adapter) ? null : poolKeyOf(adapter)),
  /** By their own namespace, those that name a pool's. */
  guests: ({ spec, metadata }) =>
    spec.poolRef.namespace === undefined ? null : (metadata.namespace ?? null),
};

export interface AdapterLookup {
  by(index: AdapterIndex, value: string): Iterable<LoraAdapter>;
  /** See Store. */
  versionOf(index: AdapterIndex, value: string): number;
}

interface Deps {
  adapters: Pick<AdapterLookup, 'by'>;
  standing: (adapter: LoraAdapter) => Standing;
}

/** The object may be older than the field. */
function goesEverywhere({ spec, metadata }: LoraAdapter): boolean {
  return metadata.deletionTimestamp !== undefined || (spec.placement?.mode ?? 'All') === 'All';
}

/** The adapters of a pool that may be in it: others have no claim to anything there. */
export function tenantsOf({ adapters, standing }: Deps, poolKey: string): LoraAdapter[] {
  return [...adapters.by('pool', poolKey)].filter((adapter) => standing(adapter) !== 'refused');
}

/** Whose a served name is in a pool. */
export function ownerIn(
  { adapters, standing }: Deps,
  poolKey: string,
  servedName: string,
): LoraAdapter | null {
  const named = [...adapters.by('name', `${poolKey} ${servedName}`)];
  const tenants = named.filter((adapter) => standing(adapter) !== 'refused');
  return ownerOfName(tenants, poolKey, servedName);
}
