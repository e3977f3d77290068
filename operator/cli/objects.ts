import { LORA_ADAPTERS, type LoraAdapter } from '../api/lora-adapter.ts';

import { SERVER_POOLS, type ServerPool } from '../api/server-pool.ts';
import { type KubeObject, PODS, pathOf, type Resource, SECRETS } from '../kube/resource.ts';
import { isApiError } from '../kube/rest.ts';
import { CommandFailure } from './failure.ts';
import { selectorText } from './selector.ts';
import type { Session } from './session.ts';

/** What the CLI looks at of a pod. */
export interface PodObject extends KubeObject {
  spec: {
    nodeName?: string;
    containers: {
      name: string;
      args?: string[];
      ports?: { name?: string; containerPort: number }[];
    }[];
  };
  status?: { phase?: string; podIP?: string; conditions?: { type: string; status: string }[] };
}

export interface ServiceObject extends KubeObject {
  spec: {
    selector?: Record<string, string>;
    ports?: { name?: string; port: number; targetPort?: number | string }[];
  };
}

export const SERVICES: Resource = {
  group: '',
  version: 'v1',
  plural: 'services',
  kind: 'Service',
  namespaced: true,
};

const PAGE = 500;
/** More than any table of them that somebody reads. */
const PAGES_MAX = 40;

export async function listAll<T>(
  { rest }: Pick<Session, 'rest'>,
  resource: Resource,
  at: { namespace?: string | undefined; labelSelector?: string } = {},
): Promise<T[]> {
  const items: T[] = [];
  let next: string | undefined;
  for (let page = 0; page < PAGES_MAX; page++) {
    const query = { limit: PAGE, continue: next, labelSelector: at.labelSelector };
    const path = pathOf(resource, { namespace: at.namespace });
    const list = await rest.request<{ items: T[]; metadata: { continue?: string } }>({
      method: 'GET',
      path,
      query,
    });
    items.push(...list.items);
    next = list.metadata.continue;
    if (!next) return items;
  }
  throw new CommandFailure(`there are more than ${PAGE * PAGES_MAX} ${resource.plural}`, {
    todo: 'Name a namespace with -n.',
  });
}

export async function getAdapter({ rest }: Session, namespace: string, name: string): Promise<LoraAdapter> {
  const path = pathOf(LORA_ADAPTERS, { namespace, name });
  try {
    return await rest.request<LoraAdapter>({ method: 'GET', path });
  } catch (error) {
    if (!isApiError(error, 404)) throw error;
    const isKnown = !error.message.includes('could not find the requested resource');
    throw isKnown
      ? new CommandFailure(`there is no LoraAdapter "${name}" in namespace ${namespace}`, {
          todo: 'kubectl get loras --all-namespaces lists those that there are; -n names another namespace.',
          cause: error,
        })
      : error;
  }
}

export function listAdapters(session: Session): Promise<LoraAdapter[]> {
  return listAll(session, LORA_ADAPTERS, { namespace: session.namespace ?? undefined });
}

export function listPools(session: Session): Promise<ServerPool[]> {
  return listAll(session, SERVER_POOLS, { namespace: session.namespace ?? undefined });
}

/** Null: there is none, or the user may not see it. */
export async function poolOf({ rest }: Session, adapter: LoraAdapter): Promise<ServerPool | null> {
  const { name, namespace = adapter.metadata.namespace } = adapter.spec.poolRef;
  try {
    return await rest.request<ServerPool>({ method: 'GET', path: pathOf(SERVER_POOLS, { namespace, name }) });
  } catch (error) {
    if (isApiError(error, 404) || isApiError(error, 403)) return null;
    throw error;
  }
}

/** The pods of a pool that run. */
export async function podsOf(session: Session, pool: ServerPool): Promise<PodObject[]> {
  const labelSelector = selectorText(pool.spec.selector);
  const namespace = pool.metadata.namespace;
  const pods = await listAll<PodObject>(session, PODS, { namespace, labelSelector });
  return pods.filter(({ status }) => status?.phase === 'Running');
}

export async function secretValue(
  { rest }: Session,
  { namespace, name, key }: { namespace: string; name: string; key: string },
): Promise<string> {
  const path = pathOf(SECRETS, { namespace, name });
  const secret = await rest.request<{ data?: Record<string, string> }>({ method: 'GET', path });
  const value = secret.data?.[key];
  if (value === undefined) throw new CommandFailure(`the Secret ${namespace}/${name} has no key ${key}`);
  return Buffer.from(value, 'base64').toString('utf8');
}

export function isReady(pod: PodObject): boolean {
  const isUp = pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True');
  return isUp === true && pod.metadata.deletionTimestamp === undefined;
}

/** A container port by its name, else the one that is usual. */
export function portOf(pod: PodObject, name: string, usual: number): number {
  const ports = pod.spec.containers.flatMap(({ ports = [] }) => ports);
  return ports.find((port) => port.name === name)?.containerPort ?? usual;
}
