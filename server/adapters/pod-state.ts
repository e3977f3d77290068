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
  tier: { usedBytes: number };
  seeded: boolean;
}

/** A pod's state without its adapters. */
export type PodTotals = Omit<PodState, 'adapters'>;

/** By revision. */
export type Slots = ReadonlyMap<string, EngineSnapshot['slots'][number]>;

export function slotsOf(snapshot: EngineSnapshot): Slots {
  return new Map(snapshot.slots.map((slot) => [slot.revision, slot]));
}

/** Revisions of which a state says something else than it did with the slots before. */
export function changedSlots(before: Slots, after: Slots): string[] {
  const revisions = new Set([...before.keys(), ...after.keys()]);
  return [...revisions].filter((revision) => {
    const [was, is] = [before.get(revision), after.get(revision)];
    return was?.state !== is?.state || was?.leases !== is?.leases;
  });
}

export function describeTotals(facts: PodFacts, load: Load, snapshot: EngineSnapshot): PodTotals {
  const { info } = load.engine;
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
      hostBytes: facts.tier.usedBytes,
    },
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

/** The current revision of each adapter that has one. */
export function currentOf({ adapters }: PodState): { name: string; digest: string; step: number | null }[] {
  return adapters.flatMap(({ name, current, revisions }) =>
    revisions.filter(({ digest }) => digest === current).map(({ digest, step }) => ({ name, digest, step })),
  );
}

/** Tiers and leases are what the engine reports now, never what we remember. */
export function describeAdapter(adapter: Adapter, slots: Slots, requestsPerMinute: number): AdapterState {
  const { name, current, fence, accepted, revisions } = adapter;
  const states = [...revisions.values()].map((revision) => describeRevision(revision, current, slots));
  return {
    name,
    current,
    fence,
    accepted,
    revisions: states,
    ...(requestsPerMinute > 0 && { requestsPerMinute }),
  };
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
