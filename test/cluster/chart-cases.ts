import { CHARTS, type Manifest } from './helm.ts';

export const SERVER_VALUES = {
  model: { name: 'parrot', volume: { persistentVolumeClaim: { claimName: 'parrot', readOnly: true } } },
  admin: { tokenSecret: { name: 'admin' } },
};
export const CASES = [
  { chart: CHARTS.operator, title: 'lorikeet', values: {} },
  { chart: CHARTS.server, title: 'lorikeet-server', values: SERVER_VALUES },
];

export interface PodTemplate {
  metadata: object;
  spec: { containers: { args: string[]; [field: string]: unknown }[]; [field: string]: unknown };
}

export interface DeploymentSpec {
  replicas: number;
  selector: { matchLabels: Record<string, string> };
  template: PodTemplate;
}

export function deploymentOf(manifests: Manifest[]): DeploymentSpec {
  return manifests.find(({ kind }) => kind === 'Deployment')?.spec as DeploymentSpec;
}

export const argsOf = (manifests: Manifest[]) =>
  deploymentOf(manifests).template.spec.containers[0]?.args ?? [];
export const kindsOf = (manifests: Manifest[]) => manifests.map(({ kind }) => kind);

export function everywhere() {
  return {
    imagePullSecrets: [{ name: 'registry' }],
    image: { digest: `sha256:${'a'.repeat(64)}`, pullPolicy: 'Always' },
    serviceAccount: { annotations: { a: 'b' } },
    podAnnotations: { a: 'b' },
    podLabels: { a: 'b' },
    priorityClassName: 'system-cluster-critical',
    nodeSelector: { a: 'b' },
    tolerations: [{ key: 'nvidia.com/gpu', operator: 'Exists' }],
    affinity: { nodeAffinity: {} },
    podDisruptionBudget: { maxUnavailable: '50%' },
  };
}

export function everyOperatorKnob() {
  const push = {
    port: 1234,
    url: 'https://push.example',
    tls: { secret: 'push' },
    service: { type: 'LoadBalancer', annotations: { a: 'b' } },
  };
  return {
    ...everywhere(),
    push,
    networkPolicy: { enabled: true, trainers: [{ podSelector: {} }] },
    watchNamespace: 'other',
  };
}

export function everyServerKnob() {
  return {
    ...everywhere(),
    ...SERVER_VALUES,
    model: {
      name: 'parrot',
      digest: `sha256:${'b'.repeat(64)}`,
      volume: { image: { reference: 'models/parrot:1' } },
      subPath: 'v1',
    },
    sourceSecrets: ['s3'],
    deploymentLabels: { 'kueue.x-k8s.io/queue-name': 'serving' },
    pool: {
      limits: { maxRank: 8, maxAdapterBytes: '8Mi' },
      tenancy: { namespaces: { from: 'All' } },
      unmanaged: 'Prune',
    },
    rollingUpdate: { maxSurge: 0, maxUnavailable: '50%' },
    service: { type: 'NodePort', annotations: { a: 'b' } },
    admin: {
      ...SERVER_VALUES.admin,
      tls: { secret: 'pods', clientSecret: 'client', serverName: 'bird.svc' },
    },
    networkPolicy: { enabled: true },
    resources: { limits: { 'nvidia.com/gpu': 1 } },
    shutdown: { drainSeconds: 0 },
    runtimeClassName: 'nvidia',
    topologySpread: [{ topologyKey: 'zone', whenUnsatisfiable: 'DoNotSchedule' }],
  };
}

interface Rule {
  apiGroups: string[];
  resources: string[];
  resourceNames?: string[];
  verbs: string[];
}

/** One line per rule: kind, name, resources with their groups, names, verbs. */
export function grantsOf(manifests: Manifest[]): string[] {
  const roles = manifests.filter(({ kind }) => kind === 'Role' || kind === 'ClusterRole');
  return roles.flatMap(({ kind, metadata, rules }) =>
    (rules as Rule[]).map(({ apiGroups, resources, resourceNames = [], verbs }) => {
      const where = kind === 'Role' ? `${metadata.namespace}/${metadata.name}` : metadata.name;
      const what = resources.map((resource) => [resource, ...apiGroups.filter(Boolean)].join('.'));
      const names = resourceNames.length > 0 ? ` [${resourceNames.join(',')}]` : '';
      return `${kind} ${where}: ${verbs.join(',')} ${what.join(',')}${names}`;
    }),
  );
}
