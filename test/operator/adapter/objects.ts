import { ADAPTER_FINALIZER, type LoraAdapter, LoraAdapterSpec } from '../../../operator/api/lora-adapter.ts';
import { type ServerPool, ServerPoolSpec } from '../../../operator/api/server-pool.ts';
import type { KubePod } from '../../../operator/pods/fleet.ts';

export const NAMESPACE = 'lora';
export const POOL_KEY = `${NAMESPACE}/parrot`;

type Overrides = { metadata?: Partial<LoraAdapter['metadata']>; spec?: Record<string, unknown> };

/** An adapter from an object store that the operator has taken up already. */
export function loraAdapter(name: string, { metadata = {}, spec = {} }: Overrides = {}): LoraAdapter {
  return {
    apiVersion: 'lorikeet.dev/v1alpha1',
    kind: 'LoraAdapter',
    metadata: {
      name,
      namespace: NAMESPACE,
      uid: `uid-${name}`,
      generation: 1,
      resourceVersion: '1',
      creationTimestamp: '2026-06-01T00:00:00Z',
      finalizers: [ADAPTER_FINALIZER],
      ...metadata,
    },
    spec: LoraAdapterSpec.parse({
      poolRef: { name: 'parrot' },
      source: { objectStore: { uri: `s3://bucket/${name}/` } },
      ...spec,
    }),
  };
}

export function pushedAdapter(name: string, { metadata = {}, spec = {} }: Overrides = {}): LoraAdapter {
  return loraAdapter(name, { metadata, spec: { source: { push: {} }, ...spec } });
}

export function serverPool(port: number, spec: Record<string, unknown> = {}): ServerPool {
  return {
    apiVersion: 'lorikeet.dev/v1alpha1',
    kind: 'ServerPool',
    metadata: { name: 'parrot', namespace: NAMESPACE, uid: 'uid-pool', generation: 1 },
    spec: ServerPoolSpec.parse({
      selector: { matchLabels: { app: 'parrot' } },
      baseModel: { name: 'parrot' },
      admin: { port, auth: { tokenSecretRef: { name: 'admin' } } },
      ...spec,
    }),
  };
}

export function kubePod(name: string, podIP: string, overrides: Partial<KubePod['metadata']> = {}): KubePod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: NAMESPACE, uid: `uid-${name}`, labels: { app: 'parrot' }, ...overrides },
    status: { phase: 'Running', podIP },
  };
}
