import type { LoraAdapter } from '../../../operator/api/lora-adapter.ts';
import type { ServerPool } from '../../../operator/api/server-pool.ts';

/** As a person writes it: without what the API server fills in. */
export interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace: string; [field: string]: unknown };
  spec: Record<string, unknown>;
  status?: object;
}

export function adapterManifest(name: string, spec: Record<string, unknown> = {}): Manifest {
  return {
    apiVersion: 'lorikeet.dev/v1alpha1',
    kind: 'LoraAdapter',
    metadata: { name, namespace: 'default' },
    spec: { poolRef: { name: 'llama' }, source: { push: {} }, ...spec },
  };
}

export function poolManifest(name: string, spec: Record<string, unknown> = {}): Manifest {
  return {
    apiVersion: 'lorikeet.dev/v1alpha1',
    kind: 'ServerPool',
    metadata: { name, namespace: 'default' },
    spec: {
      selector: { matchLabels: { app: 'llama' } },
      baseModel: { name: 'llama-3.1-8b' },
      admin: { auth: { tokenSecretRef: { name: 'token' } } },
      ...spec,
    },
  };
}

const DIGEST = `sha256:${'0123456789ab'.padEnd(64, 'f')}`;

const revision = {
  digest: DIGEST,
  short: '0123456789ab',
  step: 4211,
  bytes: 1_048_576,
  rank: 16,
  targetModules: ['q_proj', 'v_proj'],
  sourceVersion: 'etag-1',
  pushedBy: 'system:serviceaccount:rl:trainer',
  at: '2026-06-01T10:00:00Z',
};

/** A status with every field set. */
export const FULL_ADAPTER_STATUS: NonNullable<LoraAdapter['status']> = {
  observedGeneration: 1,
  conditions: [
    {
      type: 'Ready',
      status: 'True',
      reason: 'Ready',
      message: 'Every desired pod serves the desired revision.',
      lastTransitionTime: '2026-06-01T10:00:00Z',
      observedGeneration: 1,
    },
  ],
  servedName: 'sql',
  pushURL: 'http://operator:8080/v1/namespaces/default/adapters/sql/revisions',
  desiredRevision: revision,
  currentRevision: revision,
  previousRevisions: [{ ...revision, step: null }],
  pods: { desired: 2, staged: 2, ready: 2, summary: '2/2' },
  podErrors: [{ name: 'pod-1', reason: 'Unreachable', message: 'timeout', retryAt: '2026-06-01T10:00:00Z' }],
  lastSwap: { durationMs: 12.5, skewMs: 0.75, bytes: 1_048_576, pods: 2 },
};

export const FULL_POOL_STATUS: NonNullable<ServerPool['status']> = {
  observedGeneration: 1,
  conditions: [
    {
      type: 'Ready',
      status: 'False',
      reason: 'PodsNotReady',
      message: 'x',
      lastTransitionTime: '2026-06-01T10:00:00Z',
      observedGeneration: 1,
    },
  ],
  pods: 3,
  readyPods: 2,
  podsSummary: '2/3',
  slots: { total: 16, used: 5 },
  hostBytes: { total: 1_073_741_824, used: 5_242_880 },
  adapters: 5,
  podErrors: [{ name: 'pod-1', reason: 'base_model_mismatch', message: 'x' }],
  unmanaged: [{ pod: 'pod-2', name: 'stray' }],
};
