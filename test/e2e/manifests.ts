import { NAMESPACE, POOL } from './world.ts';

/** The LoraAdapters of the story and of the tests. */

export const BUCKET = 'adapters';

export function loraAdapter(name: string, source: object, more: object = {}, namespace = NAMESPACE): object {
  return {
    apiVersion: 'lorikeet.dev/v1alpha1',
    kind: 'LoraAdapter',
    metadata: { name, namespace },
    spec: { poolRef: { name: POOL }, source, ...more },
  };
}

export function storedAdapter(name: string, endpoint: string, prefix = name, more: object = {}): object {
  const objectStore = {
    uri: `s3://${BUCKET}/${prefix}/`,
    endpoint,
    region: 'us-east-1',
    credentialsSecretRef: { name: 'adapters-s3' },
  };
  return loraAdapter(name, { objectStore }, more);
}

export function pushedAdapter(name: string, more: object = {}): object {
  return loraAdapter(name, { push: {} }, more);
}
