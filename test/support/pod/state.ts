/** What the pods of tests say of themselves. */
import type { AdapterState, PodState, RevisionState } from '../../../server/contract/adapter-api.ts';
import { PARROT_GEOMETRY } from '../parrot-geometry.ts';

/** A digest to be told from others at a glance. */
export function digest(hex: string): string {
  return `sha256:${hex.repeat(64).slice(0, 64)}`;
}

export const BASE_MODEL = { name: 'parrot', digest: digest('b'), geometry: PARROT_GEOMETRY };

export interface StateOptions {
  adapters?: AdapterState[];
  baseModel?: { name?: string; digest?: string };
  limits?: Partial<PodState['limits']>;
  used?: Partial<PodState['used']>;
  seeded?: boolean;
  relays?: boolean;
}

/** The report of a pod that holds nothing and may be ready, but for what is given. */
export function podState({
  adapters = [],
  baseModel,
  limits,
  used,
  seeded = true,
  relays,
}: StateOptions = {}): PodState {
  return {
    bootId: 'boot',
    baseModel: { ...BASE_MODEL, ...baseModel },
    limits: {
      slots: 8,
      pages: 8,
      hostBytes: 1_000,
      maxRank: 64,
      maxAdapterBytes: 500,
      modules: Object.keys(PARROT_GEOMETRY.modules),
      dtypes: ['F32'],
      ...limits,
    },
    used: { slots: 0, pages: 0, hostBytes: 0, ...used },
    adapters,
    epoch: 1,
    seeded,
    ...(relays !== undefined && { relays }),
  };
}

/** An adapter on a pod; the digest of its current revision is null where there is none yet. */
export function adapterState(
  name: string,
  current: string | null,
  revisions: RevisionState[] = current === null ? [] : [held(current, 'current')],
): AdapterState {
  return { name, current, fence: null, revisions };
}

/** One revision on a pod. */
export function held(
  revision: string,
  state: RevisionState['state'],
  more: Partial<RevisionState> = {},
): RevisionState {
  const shape = { bytes: 100, rank: 8, modules: ['v_proj', 'q_proj'] };
  return { digest: revision, step: null, state, tier: 'slot', leases: 0, ...shape, ...more };
}
