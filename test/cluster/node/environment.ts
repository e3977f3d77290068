import type {
  V1Container,
  V1EnvVar,
  V1ObjectFieldSelector,
  V1ResourceFieldSelector,
} from '@kubernetes/client-node';
import { NotStartable, type Pod } from './manifest.ts';

/** Reads the data of a Secret or ConfigMap of the pod's namespace, decoded; null where there is none. */
export type ReadData = (
  kind: 'secrets' | 'configmaps',
  name: string,
) => Promise<Record<string, Buffer> | null>;

export interface Surroundings {
  pod: Pod;
  podIP: string;
  hostIP: string;
  readData: ReadData;
}

/** The container's environment as its manifest gives it: envFrom, then env, each value seeing those before it. */
export async function environmentOf(
  container: V1Container,
  around: Surroundings,
): Promise<Record<string, string>> {
  const environment: Record<string, string> = {};
  for (const { prefix = '', configMapRef, secretRef } of container.envFrom ?? []) {
    const kind = secretRef ? 'secrets' : 'configmaps';
    const reference = secretRef ?? configMapRef;
    const data = await readWhole(kind, reference ?? {}, around);
    for (const [key, value] of Object.entries(data)) environment[prefix + key] = value.toString('utf8');
  }
  for (const variable of container.env ?? []) {
    const value = variable.valueFrom
      ? await valueFrom(variable, container, around)
      : expand(variable.value ?? '', environment);
    if (value !== undefined) environment[variable.name] = value;
  }
  return environment;
}

/** `$(NAME)` becomes the variable's value, `$$(NAME)` the text `$(NAME)`; an unknown name stays as it is. */
export function expand(text: string, environment: Record<string, string>): string {
  return text.replace(/\$\$|\$\(([^()$]*)\)/g, (match, name?: string) => {
    if (name === undefined) return '$';
    return environment[name] ?? match;
  });
}

async function readWhole(
  kind: 'secrets' | 'configmaps',
  { name = '', optional = false }: { name?: string; optional?: boolean },
  { readData }: Surroundings,
): Promise<Record<string, Buffer>> {
  const data = await readData(kind, name);
  if (data === null && !optional)
    throw new NotStartable('CreateContainerConfigError', `${kind} "${name}" not found`);
  return data ?? {};
}

async function valueFrom(
  { name, valueFrom: source }: V1EnvVar,
  container: V1Container,
  around: Surroundings,
): Promise<string | undefined> {
  if (source?.fieldRef) return fieldValue(source.fieldRef, around);
  if (source?.resourceFieldRef) return resourceValue(source.resourceFieldRef, container);
  const reference = source?.secretKeyRef ?? source?.configMapKeyRef;
  if (!reference) throw new NotStartable('CreateContainerConfigError', `unknown source of variable ${name}`);
  const kind = source?.secretKeyRef ? 'secrets' : 'configmaps';
  const value = (await readWhole(kind, reference, around))[reference.key];
  if (value === undefined && reference.optional !== true) {
    throw new NotStartable(
      'CreateContainerConfigError',
      `couldn't find key ${reference.key} in ${kind} ${reference.name}`,
    );
  }
  return value?.toString('utf8');
}

export function fieldValue(
  { fieldPath }: V1ObjectFieldSelector,
  { pod, podIP, hostIP }: Surroundings,
): string {
  const fields: Record<string, string | undefined> = {
    'metadata.name': pod.metadata.name,
    'metadata.namespace': pod.metadata.namespace,
    'metadata.uid': pod.metadata.uid,
    'metadata.labels': flatten(pod.metadata.labels),
    'metadata.annotations': flatten(pod.metadata.annotations),
    'spec.nodeName': pod.spec.nodeName,
    'spec.serviceAccountName': pod.spec.serviceAccountName,
    'status.podIP': podIP,
    'status.podIPs': podIP,
    'status.hostIP': hostIP,
  };
  const [, map, key] = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(fieldPath) ?? [];
  const value =
    key === undefined ? fields[fieldPath] : (pod.metadata[map as 'labels' | 'annotations']?.[key] ?? '');
  if (value === undefined)
    throw new NotStartable('CreateContainerConfigError', `unsupported fieldPath ${fieldPath}`);
  return value;
}

function flatten(map: Record<string, string> = {}): string {
  return Object.entries(map)
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .join('\n');
}

const UNIT_BYTES: Record<string, number> = {
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  m: 1e-3,
  '': 1,
};

/** Whole units of the divisor, rounded up. */
function resourceValue({ resource, divisor = '1' }: V1ResourceFieldSelector, container: V1Container): string {
  const [kind, name] = resource.split(/\.(.*)/s);
  const quantity = container.resources?.[kind as 'limits' | 'requests']?.[name ?? ''];
  if (quantity === undefined) throw new NotStartable('CreateContainerConfigError', `${resource} is not set`);
  return String(Math.ceil(amount(quantity) / (amount(divisor) || 1)));
}

function amount(quantity: string): number {
  const [, number, unit] = /^([0-9.]+)([A-Za-z]*)$/.exec(quantity) ?? [];
  return Number(number) * (UNIT_BYTES[unit ?? ''] ?? Number.NaN);
}
