import { findCondition } from '../api/conditions.ts';
import { type LoraAdapter, type RevisionRecord, servedNameOf } from '../api/lora-adapter.ts';
import type { ServerPool } from '../api/server-pool.ts';

/** What `status` says of an adapter, for programs too. */
export interface AdapterView {
  namespace: string;
  name: string;
  /** `namespace/name` where it is of another namespace. */
  pool: string;
  servedName: string;
  source: string;
  /** Where the content came from: the account that pushed it, or the source. */
  from: string;
  ready: 'True' | 'False' | 'Unknown';
  reason: string;
  message: string;
  pods: { desired: number; staged: number; ready: number };
  /** What every desired pod serves. */
  current: RevisionRecord | null;
  /** What they should. */
  desired: RevisionRecord | null;
  /** Newest first. */
  previous: RevisionRecord[];
  lastSwap: { durationMs: number; skewMs: number; bytes: number; pods: number } | null;
  podErrors: { name: string; reason: string; message: string; retryAt?: string | undefined }[];
  conditions: { type: string; status: string; reason: string; message: string }[];
  suspended: boolean;
}

export function adapterView(adapter: LoraAdapter): AdapterView {
  const { metadata, spec, status = {} } = adapter;
  const { name, namespace = '' } = metadata;
  const { poolRef } = spec;
  const ready = findCondition(status.conditions, 'Ready');
  const pods = status.pods ?? { desired: 0, staged: 0, ready: 0 };
  const desired = status.desiredRevision ?? null;
  const source = sourceText(spec.source);
  return {
    namespace,
    name,
    pool: poolRef.namespace === undefined ? poolRef.name : `${poolRef.namespace}/${poolRef.name}`,
    servedName: status.servedName ?? servedNameOf(adapter),
    source,
    from: desired?.pushedBy ?? source,
    ready: ready?.status ?? 'Unknown',
    reason: ready?.reason ?? 'NotObserved',
    message: ready?.message ?? 'The operator has not looked at it yet.',
    pods: { desired: pods.desired, staged: pods.staged, ready: pods.ready },
    current: status.currentRevision ?? null,
    desired,
    previous: status.previousRevisions ?? [],
    lastSwap: status.lastSwap ?? null,
    podErrors: status.podErrors ?? [],
    conditions: (status.conditions ?? []).map(({ type, status, reason, message }) => {
      return { type, status, reason, message };
    }),
    suspended: spec.suspend ?? false,
  };
}

/** Where the tensors come from, as one word. */
export function sourceText(source: LoraAdapter['spec']['source']): string {
  const { objectStore, huggingFace, http, oci, push } = source;
  if (objectStore) return objectStore.uri;
  if (huggingFace) return `hf://${huggingFace.repo}`;
  if (http) return http.url;
  if (oci) return `oci://${oci.image}`;
  return push ? 'push' : '-';
}

export interface PoolView {
  namespace: string;
  name: string;
  base: string;
  pods: { ready: number; total: number };
  slots: { used: number; total: number } | null;
  hostBytes: { used: number; total: number } | null;
  adapters: number;
  ready: string;
  /** Of Ready, or of CapacityPressure where that is what is wrong; null: nothing is. */
  trouble: string | null;
}

export function poolView({ metadata, spec, status = {} }: ServerPool): PoolView {
  const ready = findCondition(status.conditions, 'Ready');
  const pressure = findCondition(status.conditions, 'CapacityPressure');
  const trouble =
    ready?.status !== 'True' ? ready?.reason : pressure?.status === 'True' ? pressure.reason : null;
  return {
    namespace: metadata.namespace ?? '',
    name: metadata.name,
    base: spec.baseModel.name,
    pods: { ready: status.readyPods ?? 0, total: status.pods ?? 0 },
    slots: status.slots ?? null,
    hostBytes: status.hostBytes ?? null,
    adapters: status.adapters ?? 0,
    ready: ready?.status ?? 'Unknown',
    trouble: trouble ?? null,
  };
}

/** `9e0ec293869f`, or `9e0ec293869f -> 80b7938f91a4` while another one is on its way. */
export function revisionText({ current, desired }: Pick<AdapterView, 'current' | 'desired'>): string {
  if (desired === null || desired.digest === current?.digest) return current?.short ?? '-';
  return `${current?.short ?? 'none'} -> ${desired.short}`;
}
