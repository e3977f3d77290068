import type { AdapterState, Geometry, PodState, RevisionState } from '../contract/adapter-api.ts';
import { FACTOR_DTYPES } from '../contract/format/bind.ts';
import type { EngineSnapshot } from '../engine/port.ts';
import type { Adapter, Revision } from './adapters.ts';
import type { Load } from './load.ts';

export interface BaseIdentity {
  /** The served name. */
  name: string;
  digest: string;
  geometry: Geometry;
}

export interface PodLimits {
  hostBytes: number;
  maxRank: number;
  maxAdapterBytes: number;
}

export interface PodFacts {
  bootId: string;
  baseModel: BaseIdentity;
  limits: PodLimits;
  hostBytesUsed: number;
  seeded: boolean;
  load: Load;
  adapters: Adapter[];
}

type Slots = Map<string, EngineSnapshot['slots'][number]>;

/** What the admin API says of the pod. Tiers and leases are what the engine reports now, never what we remember. */
export function describePod(facts: PodFacts): PodState {
  const { load } = facts;
  const { info } = load.engine;
  const snapshot = load.engine.snapshot();
  const slots: Slots = new Map(snapshot.slots.map((slot) => [slot.revision, slot]));
  return {
    bootId: facts.bootId,
    baseModel: facts.baseModel,
    limits: {
      ...facts.limits,
      slots: info.slots,
      pages: info.pages,
      kvBlocks: info.kvBlocks,
      modules: Object.keys(facts.baseModel.geometry.modules),
      dtypes: [...FACTOR_DTYPES],
    },
    used: {
      slots: snapshot.slots.length,
      pages: snapshot.pagesUsed,
      kvBlocks: load.kvBlocksUsed,
      hostBytes: facts.hostBytesUsed,
    },
    adapters: facts.adapters.map((adapter) => {
      const requestsPerMinute = load.traffic.perMinute(adapter.name);
      return {
        ...describeAdapter(adapter, slots),
        ...(requestsPerMinute > 0 && { requestsPerMinute }),
      };
    }),
    epoch: snapshot.epoch,
    seeded: facts.seeded,
  };
}

/** Adapter names by the tier of their current revision. */
export function residencyOf({ adapters, limits }: PodState): {
  slots: number;
  resident: string[];
  host: string[];
} {
  const tierOf = ({ current, revisions }: AdapterState) =>
    revisions.find(({ digest }) => digest === current)?.tier;
  const named = (tier: string) => adapters.filter((item) => tierOf(item) === tier).map(({ name }) => name);
  return { slots: limits.slots, resident: named('slot'), host: named('host') };
}

function describeAdapter(adapter: Adapter, slots: Slots): AdapterState {
  const { name, current, fence, accepted, revisions } = adapter;
  const states = [...revisions.values()].map((revision) => describeRevision(revision, current, slots));
  return { name, current, fence, accepted, revisions: states };
}

function describeRevision(revision: Revision, current: string | null, slots: Slots): RevisionState {
  const { digest, step, bytes, rank, modules, retired } = revision;
  const slot = slots.get(digest);
  return {
    digest,
    step,
    state: retired ? 'retired' : digest === current ? 'current' : 'staged',
    tier: slot !== undefined && slot.state !== 'staging' ? 'slot' : 'host',
    leases: slot?.leases ?? 0,
    bytes,
    rank,
    modules,
  };
}

/** Revisions with running or waiting requests. */
export function leasedIn({ slots }: EngineSnapshot): Set<string> {
  return new Set(slots.flatMap(({ revision, leases }) => (leases > 0 ? [revision] : [])));
}
