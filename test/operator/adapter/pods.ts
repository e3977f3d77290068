import type { PodClient } from '../../../operator/pods/client.ts';
import type { Pod } from '../../../operator/pods/pod.ts';
import type { AdapterState, Fence, PodState, RevisionState } from '../../../server/contract/adapter-api.ts';
import { PARROT_GEOMETRY } from '../../support/parrot-geometry.ts';
import { BASE_DIGEST } from '../../support/scripted-pod.ts';
import { POOL_KEY } from './objects.ts';

export function digest(hex: string): string {
  return `sha256:${hex.repeat(64).slice(0, 64)}`;
}

export function held(
  revision: string,
  state: RevisionState['state'],
  step: number | null = null,
): RevisionState {
  return {
    digest: revision,
    step,
    state,
    tier: 'slot',
    leases: 0,
    bytes: 100,
    rank: 8,
    modules: ['v_proj', 'q_proj'],
  };
}

interface FakePod {
  name?: string;
  reachable?: boolean;
  error?: string | null;
  state?: null;
  adapters?: (Omit<AdapterState, 'fence'> & { fence?: Fence | null })[];
  baseModel?: { name?: string; digest?: string };
  limits?: Partial<PodState['limits']>;
  used?: Partial<PodState['used']>;
  seeded?: boolean;
}

/** A pod as a link shows it; nobody answers at it. */
export function fakePod(options: FakePod = {}): Pod {
  const { name = 'pod-0', reachable = options.state !== null, error = null } = options;
  const state: PodState = {
    bootId: 'boot',
    baseModel: { name: 'parrot', digest: BASE_DIGEST, geometry: PARROT_GEOMETRY, ...options.baseModel },
    limits: {
      slots: 8,
      pages: 8,
      hostBytes: 1_000,
      maxRank: 64,
      maxAdapterBytes: 500,
      modules: Object.keys(PARROT_GEOMETRY.modules),
      dtypes: ['F32'],
      ...options.limits,
    },
    used: { slots: 0, pages: 0, hostBytes: 0, ...options.used },
    adapters: (options.adapters ?? []).map((adapter) => ({ fence: null, ...adapter })),
    epoch: 1,
    seeded: options.seeded ?? true,
  };
  return {
    key: `lora/${name}`,
    name,
    namespace: 'lora',
    uid: `uid-${name}`,
    ip: '127.0.1.1',
    poolKey: POOL_KEY,
    adminUrl: 'http://127.0.1.1:1',
    client: null as unknown as PodClient,
    state: options.state === null ? null : state,
    reachable,
    error: reachable ? null : error,
  };
}
