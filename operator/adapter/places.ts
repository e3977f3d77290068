import { type LoraAdapter, servedNameOf } from '../api/lora-adapter.ts';
import { poolKeyOf } from '../api/names.ts';
import type { ServerPool } from '../api/server-pool.ts';
import { keyOf } from '../kube/resource.ts';
import { assign, type Share } from '../placement/assign.ts';
import type { Claim, Site } from '../placement/claim.ts';
import { ownersOf } from '../placement/owner.ts';
import { placementOf } from '../placement/placement.ts';
import { siteOf } from '../placement/site.ts';
import type { Standing } from '../placement/tenancy.ts';
import type { Pod } from '../pods/pod.ts';
import type { Records } from './records.ts';

/** What a revision takes of a pod's host memory beside its bytes: as server/adapters counts it, a little rounded up. */
const REVISION_BYTES = 8 * 1024;
const MODULE_BYTES = 256;

/** Where the adapters of a pool should be, those apart that go everywhere without being asked. */
export interface Shares {
  /** By the uid of their objects. */
  byId: ReadonlyMap<string, Share>;
  sites: readonly Site[];
  /** `namespace/name` by uid. */
  keys: ReadonlyMap<string, string>;
}

export interface PlacesDeps {
  adapters: { list(): LoraAdapter[] };
  pools: { get(key: string): ServerPool | undefined };
  fleet: { podsOf(poolKey: string): Pod[] };
  records: Pick<Records, 'get'>;
  /** Whether an adapter may be in its pool at all. */
  standing: (adapter: LoraAdapter) => Standing;
  /** Looks at an adapter again. */
  requeue: (key: string) => void;
}

interface Asked extends Omit<Shares, 'byId'> {
  claims: readonly Claim[];
  fingerprint: string;
}

type Known = Asked & Shares;

/**
 * Keeps the last answer for each pool: whoever asks again is told the same until something changes, and an adapter that
 * should be elsewhere by a new answer is looked at.
 */
export class Places {
  readonly #known = new Map<string, Known>();

  /** Null: every adapter of the pool goes to every pod. */
  of(deps: PlacesDeps, poolKey: string): Shares | null {
    const known = this.#known.get(poolKey);
    const asked = membersOf(deps, poolKey).every(goesEverywhere) ? null : ask(deps, poolKey);
    if (asked === null) {
      this.#known.delete(poolKey);
      for (const key of known?.keys.values() ?? []) deps.requeue(key);
      return null;
    }
    if (known?.fingerprint === asked.fingerprint) return known;
    const next = { ...asked, byId: assign(asked.claims, asked.sites) };
    this.#known.set(poolKey, next);
    if (known !== undefined) for (const key of movedIn(known, next)) deps.requeue(key);
    return next;
  }

  /** The same where every adapter goes to every pod too; null: there is no such pool. */
  explain(deps: PlacesDeps, poolKey: string): Shares | null {
    const known = this.of(deps, poolKey);
    if (known !== null) return known;
    const asked = ask(deps, poolKey);
    return asked && { ...asked, byId: assign(asked.claims, asked.sites) };
  }
}

function membersOf({ adapters, standing }: PlacesDeps, poolKey: string): LoraAdapter[] {
  return adapters
    .list()
    .filter((adapter) => poolKeyOf(adapter) === poolKey && standing(adapter) === 'allowed');
}

function ask(deps: PlacesDeps, poolKey: string): Asked | null {
  const { pools, fleet, records } = deps;
  const members = membersOf(deps, poolKey);
  const pool = pools.get(poolKey);
  if (pool === undefined) return null;
  const owners = [...ownersOf(members).values()].filter(
    ({ metadata }) => metadata.deletionTimestamp === undefined,
  );
  const pods = placementOf(pool, fleet.podsOf(poolKey)).desired;
  const holders = holdersIn(pods);
  const layers = pods.find(({ state }) => state !== null)?.state?.baseModel.geometry.layers ?? 0;
  const claims = owners.map((adapter) => {
    const record = records.get(keyOf(adapter));
    const isKnown = record?.uid === adapter.metadata.uid && record?.recovered;
    const revision = isKnown ? record.target : adapter.status?.desiredRevision;
    const modules = (revision?.targetModules.length ?? 0) * layers;
    const bytes = revision ? revision.bytes + REVISION_BYTES + modules * MODULE_BYTES : 0;
    return claimOf(adapter, { bytes, held: holders.get(servedNameOf(adapter)) ?? new Set() });
  });
  const names = new Set(owners.map(servedNameOf));
  const keys = new Map(owners.map((adapter) => [adapter.metadata.uid ?? '', keyOf(adapter)]));
  const sites = pods.map((pod) => siteOf(pod, names));
  return { claims, keys, sites, fingerprint: fingerprintOf(claims, sites) };
}

/** The object may be older than the field. */
function goesEverywhere({ spec, metadata }: LoraAdapter): boolean {
  return metadata.deletionTimestamp !== undefined || (spec.placement?.mode ?? 'All') === 'All';
}

function claimOf(adapter: LoraAdapter, { bytes, held }: Pick<Claim, 'bytes' | 'held'>): Claim {
  const { mode = 'All', replicas, spread, priority = 0 } = adapter.spec.placement ?? {};
  return {
    id: adapter.metadata.uid ?? '',
    ...{ mode, replicas, priority, bytes, held },
    spread: spread === 'zone',
    since: Date.parse(adapter.metadata.creationTimestamp ?? '') || 0,
    // No pod reports how many requests an adapter gets.
    traffic: 0,
  };
}

/** Uids of pods by served name; what only waits for its last requests to end is not held. */
export function holdersIn(pods: readonly Pod[]): Map<string, Set<string>> {
  const holders = new Map<string, Set<string>>();
  for (const { uid, state } of pods) {
    for (const { name, revisions } of state?.adapters ?? []) {
      if (revisions.every((revision) => revision.state === 'retired')) continue;
      const uids = holders.get(name) ?? new Set();
      holders.set(name, uids.add(uid));
    }
  }
  return holders;
}

/** Where pods hold what goes everywhere decides nothing. */
function fingerprintOf(claims: readonly Claim[], sites: readonly Site[]): string {
  const told = claims.map((claim) => ({ ...claim, held: claim.mode === 'All' ? [] : [...claim.held] }));
  return JSON.stringify([told, sites]);
}

/** Keys of adapters that are to be elsewhere, or of which it is news that they do not fit, or that they do. */
function movedIn(before: Known, after: Known): string[] {
  const moved = [...after.byId].filter(([id, share]) => {
    const old = before.byId.get(id);
    if (old?.least !== share.least || old.pods.size !== share.pods.size) return true;
    return [...share.pods].some((pod) => !old.pods.has(pod));
  });
  return moved.flatMap(([id]) => after.keys.get(id) ?? []);
}
