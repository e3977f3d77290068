import { isDeepStrictEqual } from 'node:util';
import type { PodState } from '../../server/contract/adapter-api.ts';
import { type LoraAdapter, type RevisionRecord, servedNameOf } from '../api/lora-adapter.ts';
import type { ServerPool } from '../api/server-pool.ts';
import type { Clock } from '../kube/clock.ts';
import { keyOf } from '../kube/resource.ts';
import { type Answer, absorb, answerOf } from '../placement/absorb.ts';
import type { Share } from '../placement/assign.ts';
import type { Claim, Site } from '../placement/claim.ts';
import type { AdapterLookup } from '../placement/lookup.ts';
import { ownersOf } from '../placement/owner.ts';
import { placementOf } from '../placement/placement.ts';
import { siteOf } from '../placement/site.ts';
import { type Standing, usesNamespaceLabels } from '../placement/tenancy.ts';
import type { Pod } from '../pods/pod.ts';
import { type Paces, pacesOf, trafficOf } from './paces.ts';
import { heldBack } from './quota-claims.ts';
import type { Records } from './records.ts';

/** What a revision takes of a pod's host memory beside its bytes: as server/adapters counts it, a little rounded up. */
const REVISION_BYTES = 8 * 1024;
const MODULE_BYTES = 256;

/** Where the adapters of a pool should be. */
export interface Shares {
  /** By the uid of their objects. */
  byId: ReadonlyMap<string, Share>;
  sites: readonly Site[];
  /** `namespace/name` by uid. */
  keys: ReadonlyMap<string, string>;
}

export interface PlacesDeps {
  adapters: AdapterLookup;
  pools: { get(key: string): ServerPool | undefined };
  fleet: { podsOf(poolKey: string): Pod[] };
  records: Pick<Records, 'get'>;
  /** Whether an adapter may be in its pool at all. */
  standing: (adapter: LoraAdapter) => Standing;
  /** Looks at an adapter again. */
  requeue: (key: string) => void;
  clock: Pick<Clock, 'monotonicMs'>;
}

/** A site, and what the pod said when it was made of it. */
interface Seen {
  site: Site;
  traffic: ReadonlyMap<string, number>;
  state: PodState | null;
  reachable: boolean;
}

/** What decides where adapters should be; what pods hold does so only where nothing has been decided yet. */
interface Facts {
  pool: ServerPool;
  /** Of the pool's adapters in the cache. */
  version: number;
  /** Of the base model; 0: no pod has said. */
  layers: number;
  claims: readonly Claim[];
  names: ReadonlySet<string>;
  keys: ReadonlyMap<string, string>;
  /** By uid. */
  seen: ReadonlyMap<string, Seen>;
  paces: Paces;
}

type Known = Facts &
  Answer & {
    /** Some adapter has become larger since, and nobody moved for it. */
    isGrown: boolean;
  };

/**
 * Keeps the last answer for each pool: whoever asks again is told the same until something changes, and an adapter that
 * should be elsewhere by a new answer is looked at. An answer is carried on from the one before; the first of a process
 * from what pods hold.
 */
export class Places {
  readonly #known = new Map<string, Known>();

  /** Null: every adapter of the pool goes to every pod. `about` is the adapter that is looked at, if it is one. */
  of(deps: PlacesDeps, poolKey: string, about?: LoraAdapter): Shares | null {
    const known = this.#known.get(poolKey);
    if (known !== undefined && isFresh(known, deps, poolKey, about)) return known;
    const facts = choosesPods(deps, poolKey) ? factsOf(deps, poolKey, known) : null;
    if (facts === null) {
      this.#known.delete(poolKey);
      for (const key of known?.keys.values() ?? []) deps.requeue(key);
      return null;
    }
    if (known !== undefined && isSame(known, facts)) {
      const { seen, paces, version, pool } = facts;
      this.#known.set(poolKey, { ...known, seen, paces, version, pool });
      return known;
    }
    const next = { ...facts, ...decide(facts), isGrown: false };
    this.#known.set(poolKey, next);
    if (known !== undefined) for (const key of movedIn(known, next)) deps.requeue(key);
    return next;
  }

  /** In how long the answer may be another though nothing changes; null: it will not. */
  dueInMs({ clock }: Pick<PlacesDeps, 'clock'>, poolKey: string): number | null {
    const dueMs = this.#known.get(poolKey)?.paces.dueMs ?? null;
    return dueMs === null ? null : Math.max(0, dueMs - clock.monotonicMs());
  }

  /** The same where every adapter goes to every pod too; null: there is no such pool. */
  explain(deps: PlacesDeps, poolKey: string): Shares | null {
    const known = this.of(deps, poolKey);
    if (known !== null && !this.#known.get(poolKey)?.isGrown) return known;
    const facts = factsOf(deps, poolKey, this.#known.get(poolKey));
    return facts && { ...facts, ...decide(facts) };
  }
}

function membersOf({ adapters, standing }: PlacesDeps, poolKey: string): LoraAdapter[] {
  return [...adapters.by('pool', poolKey)].filter((adapter) => standing(adapter) === 'allowed');
}

/** Whether some adapter of the pool does not go to every pod. */
function choosesPods({ adapters, standing }: PlacesDeps, poolKey: string): boolean {
  for (const adapter of adapters.by('chosen', poolKey)) if (standing(adapter) === 'allowed') return true;
  return false;
}

/**
 * Whether nothing has changed since, as far as that can be told without going through all adapters: what this process
 * learns of one of them it learns by looking at it.
 */
function isFresh(known: Known, deps: PlacesDeps, poolKey: string, about: LoraAdapter | undefined): boolean {
  const { pools, adapters, records } = deps;
  const { version, seen, byId, layers } = known;
  const pool = pools.get(poolKey);
  if (pool === undefined || usesNamespaceLabels(pool) || !isSamePool(known, pool)) return false;
  // Who is beyond it goes by what all of them have.
  if (pool.spec.tenancy?.quota !== undefined) return false;
  if (adapters.versionOf('pool', poolKey) !== version) return false;
  if (known.paces.dueMs !== null && known.paces.dueMs <= deps.clock.monotonicMs()) return false;
  const pods = podsFor(deps, poolKey, pool);
  if (pods.length !== seen.size || !pods.every((pod) => isSeen(pod, known))) return false;
  const claim = byId.get(about?.metadata.uid ?? '')?.claim;
  const bytes = about && bytesOf(about, { records, layers, isHeldBack: false });
  return claim === undefined || bytes === undefined || bytes === claim.bytes || grow(known, claim.id, bytes);
}

function grow(known: Known, id: string, bytes: number): boolean {
  if (!absorb(known, id, bytes)) return false;
  known.claims = known.claims.map((claim) => (claim.id === id ? { ...claim, bytes } : claim));
  known.isGrown = true;
  return true;
}

function isSamePool(known: Known, pool: ServerPool): boolean {
  if (known.pool !== pool && !isDeepStrictEqual(known.pool.spec, pool.spec)) return false;
  known.pool = pool;
  return true;
}

/** It says what it said, or something else that makes no other site of it and tells of no traffic that matters. */
function isSeen(pod: Pod, { seen, names, paces }: Known): boolean {
  const before = seen.get(pod.uid);
  if (before === undefined) return false;
  if (isSameWord(before, pod)) return true;
  const now = see(pod, names);
  if (paces.byId.size > 0 || !isSameBut(now.site, before.site, 'kvFree')) return false;
  Object.assign(before, now);
  return true;
}

function podsFor({ fleet }: PlacesDeps, poolKey: string, pool: ServerPool): Pod[] {
  return placementOf(pool, fleet.podsOf(poolKey)).desired;
}

function decide({ claims, seen }: Facts): Answer {
  const sites = [...seen.values()].map(({ site }) => site);
  return answerOf(claims, sites);
}

function factsOf(deps: PlacesDeps, poolKey: string, known: Known | undefined): Facts | null {
  const { pools, adapters, records } = deps;
  const pool = pools.get(poolKey);
  if (pool === undefined) return null;
  const version = adapters.versionOf('pool', poolKey);
  const members = membersOf(deps, poolKey);
  const owners = [...ownersOf(members).values()].filter(
    ({ metadata }) => metadata.deletionTimestamp === undefined,
  );
  const names = new Set(owners.map(servedNameOf));
  const keys = new Map(owners.map((adapter) => [adapter.metadata.uid ?? '', keyOf(adapter)]));
  const pods = podsFor(deps, poolKey, pool);
  const layers = pods.find(({ state }) => state !== null)?.state?.baseModel.geometry.layers ?? 0;
  const isNew = owners.some(({ metadata }) => !known?.byId.has(metadata.uid ?? ''));
  const holders = isNew ? holdersIn(pods) : new Map<string, Set<string>>();
  const areNamesSame = known?.names.size === names.size && [...names].every((name) => known.names.has(name));
  const seen = new Map(
    pods.map((pod) => {
      const before = areNamesSame ? known?.seen.get(pod.uid) : undefined;
      return [pod.uid, before !== undefined && isSameWord(before, pod) ? before : see(pod, names)];
    }),
  );
  const heldBy = (adapter: LoraAdapter) =>
    known?.byId.get(adapter.metadata.uid ?? '')?.pods ?? holders.get(servedNameOf(adapter)) ?? new Set();
  const traffic = [...seen.values()].map((each) => each.traffic);
  const nowMs = deps.clock.monotonicMs();
  const paces = pacesOf(owners, traffic, {
    before: known?.paces,
    heldBy: (item) => heldBy(item).size,
    nowMs,
  });
  const beyond = heldBack(members, pool, records);
  const claims = owners.map((adapter) => {
    const byTraffic = paces.byId.get(adapter.metadata.uid ?? '')?.pods ?? 0;
    return claimOf(adapter, {
      bytes: bytesOf(adapter, { records, layers, isHeldBack: beyond.has(adapter.metadata.uid ?? '') }),
      held: heldBy(adapter),
      byTraffic,
    });
  });
  return { pool, version, layers, claims, names, keys, seen, paces };
}

function bytesOf(
  adapter: LoraAdapter,
  { records, layers, isHeldBack }: { records: Pick<Records, 'get'>; layers: number; isHeldBack: boolean },
): number {
  const record = records.get(keyOf(adapter));
  const isKnown = record?.uid === adapter.metadata.uid && record?.recovered;
  const { desired, current } = isKnown
    ? { desired: record.target, current: record.current }
    : { desired: adapter.status?.desiredRevision, current: adapter.status?.currentRevision };
  const revision = isHeldBack ? current : desired;
  return revision ? neededBytes(revision, layers) : 0;
}

/** Of a pod's host memory. */
export function neededBytes({ bytes, targetModules }: RevisionRecord, layers: number): number {
  return bytes + REVISION_BYTES + targetModules.length * layers * MODULE_BYTES;
}

function claimOf(
  adapter: LoraAdapter,
  { bytes, held, byTraffic }: Pick<Claim, 'bytes' | 'held' | 'byTraffic'>,
): Claim {
  const { mode = 'All', replicas, spread, priority = 0 } = adapter.spec.placement ?? {};
  return {
    id: adapter.metadata.uid ?? '',
    ...{ mode, replicas, priority, bytes, held, byTraffic },
    spread: spread === 'zone',
    since: Date.parse(adapter.metadata.creationTimestamp ?? '') || 0,
  };
}

function isSameWord({ state, reachable }: Seen, pod: Pod): boolean {
  return state === pod.state && reachable === pod.reachable;
}

function see(pod: Pod, names: ReadonlySet<string>): Seen {
  return { site: siteOf(pod, names), traffic: trafficOf(pod), state: pod.state, reachable: pod.reachable };
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

function isSame(known: Facts, facts: Facts): boolean {
  if (known.claims.length !== facts.claims.length || known.seen.size !== facts.seen.size) return false;
  const areClaimsSame = facts.claims.every((claim, index) => isSameBut(claim, known.claims[index], 'held'));
  return (
    areClaimsSame &&
    [...facts.seen].every(([uid, { site }]) => isSameBut(site, known.seen.get(uid)?.site, 'kvFree'))
  );
}

function isSameBut<T extends object>(a: T, b: T | undefined, but?: keyof T): boolean {
  if (b === undefined) return false;
  return a === b || (Object.keys(a) as (keyof T)[]).every((key) => key === but || a[key] === b[key]);
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
