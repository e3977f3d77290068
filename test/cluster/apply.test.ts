import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { parseConfig } from '../../server/config.ts';
import { VLLM } from '../../server/telemetry/metric-names.ts';
import { toolPath } from '../support/tools.ts';
import {
  type DeploymentSpec,
  deploymentOf,
  everyOperatorKnob,
  everyServerKnob,
  SERVER_VALUES,
} from './chart-cases.ts';
import { type ControlPlane, startControlPlane } from './control-plane.ts';
import { CHARTS, helmTemplate, type Manifest } from './helm.ts';

const EXAMPLES = fileURLToPath(new URL('../../examples/', import.meta.url));
const CRDS = fileURLToPath(new URL('../../crds', import.meta.url));
/** Of a Deployment beside it. */
const PATCH = 'vllm/sidecar-patch.yaml';
/** No objects of a cluster, or of a kind whose definition comes in a module of some hundred megabytes. */
const APART = ['server-values.yaml', 'argocd/application.yaml', PATCH];

const read = (file: string) => readFileSync(EXAMPLES + file, 'utf8');
const manifestsOf = (file: string): Manifest[] => parseAllDocuments(read(file)).map((one) => one.toJS());
const files = readdirSync(EXAMPLES, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.yaml') && !APART.includes(file))
  .sort();

interface PodSpec {
  containers: { name: string; args: string[]; ports?: { containerPort: number }[] }[];
  volumes: { name: string }[];
}

interface Versions {
  generation: number | undefined;
  resourceVersion: string | undefined;
}

const generationsOf = (applied: Map<string, Versions>) =>
  [...applied].map(([name, { generation }]) => [name, generation]);

/** Starts an etcd and an API server, with our definitions and those of the tools that the examples are for. */
describe('applied twice by the server', () => {
  let plane: ControlPlane;

  beforeAll(async () => {
    plane = await startControlPlane();
    await plane.kubectl(['apply', '--server-side', '-f', CRDS, '-f', toolPath('foreignCrds')]);
    await plane.kubectl(['wait', '--for=condition=Established', '--timeout=60s', 'crd', '--all']);
    for (const namespace of ['llm', 'flux-system', 'argocd', 'test'])
      await plane.kubectl(['create', 'namespace', namespace]);
  });

  afterAll(async () => {
    await plane?.stop();
  });

  /** Name → versions of each object after the apply; a field that the API server does not know fails it. */
  async function apply(manifests: readonly Manifest[]): Promise<Map<string, Versions>> {
    const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: manifests });
    const how = ['--server-side', '--validate=strict', '-f', '-', '-o', 'json'];
    const told = JSON.parse(await plane.kubectl(['apply', ...how], list));
    const applied: Manifest[] = told.kind === 'List' ? told.items : [told];
    return new Map(
      applied.map(({ kind, metadata: { name, generation, resourceVersion } }) => [
        `${kind} ${name}`,
        { generation, resourceVersion },
      ]),
    );
  }

  /** What kubectl would change. */
  async function differences(manifests: readonly Manifest[]): Promise<string> {
    const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: manifests });
    return await plane.kubectl(['diff', '--server-side', '-f', '-'], list);
  }

  async function expectNoDrift(manifests: readonly Manifest[]): Promise<void> {
    const first = await apply(manifests);
    expect(first.size).toBe(manifests.length);
    const second = await apply(manifests);
    // The second write stores the status that a definition gives to a new object, ours and those of others.
    expect(generationsOf(second)).toEqual(generationsOf(first));
    expect(await apply(manifests)).toEqual(second);
    expect(await differences(manifests)).toBe('');
  }

  it(`the example ${PATCH} makes the server the one that answers, and keeps what was there`, async () => {
    await apply(manifestsOf('vllm/deployment.yaml'));
    const how = ['--dry-run=server', '-o', 'json', '--patch-file', EXAMPLES + PATCH];
    const patched = JSON.parse(await plane.kubectl(['patch', 'deployment', 'vllm', '-n', 'llm', ...how]));
    const { containers, volumes } = (patched.spec as DeploymentSpec).template.spec as unknown as PodSpec;
    const ports = containers.map(({ name, ports = [] }) => [name, ports.map((one) => one.containerPort)]);
    expect(ports).toEqual([
      ['lorikeet', [8000, 8001]],
      ['vllm', []],
    ]);
    expect(containers[1]?.args).toContain('--host=127.0.0.1');
    expect(volumes.map(({ name }) => name).toSorted()).toEqual(['adapters', 'lorikeet-admin', 'model']);
    const own = containers[0]?.args.map((arg) => arg.replace('$(POD_IP)', '127.0.0.1')) ?? [];
    expect(parseConfig(own, {})?.attached).toMatchObject({ kind: 'vllm', dir: '/adapters' });
  });

  it.each(files)('the example %s is valid, and does not change', async (file) => {
    const manifests = manifestsOf(file);
    // These need to be there for others to be applied, and are no examples of anything.
    const namespaces = manifests.filter(({ kind }) => kind === 'Namespace');
    if (namespaces.length > 0) await apply(namespaces);
    await expectNoDrift(manifests);
  });

  it.each([
    ['lorikeet', CHARTS.operator, {}],
    ['lorikeet with every knob turned', CHARTS.operator, everyOperatorKnob()],
    ['lorikeet-server', CHARTS.server, SERVER_VALUES],
    ['lorikeet-server with every knob turned', CHARTS.server, everyServerKnob()],
    [
      'lorikeet-server under KEDA',
      CHARTS.server,
      { ...SERVER_VALUES, autoscaling: { keda: { enabled: true } } },
    ],
  ])('the chart %s does not change', async (name, chart, values) => {
    const release = name.replaceAll(/[^a-z]+/gi, '-').toLowerCase();
    await plane.kubectl(['create', 'namespace', 'other']).catch(() => {});
    const manifests = await helmTemplate({ chart, values, name: release });
    expect(await helmTemplate({ chart, values, name: release })).toEqual(manifests);
    await expectNoDrift(manifests.filter(({ kind }) => kind !== 'CustomResourceDefinition'));
  });

  it("keeps Argo CD's settings beside our health checks", async () => {
    const settings = { metadata: { name: 'argocd-cm', namespace: 'argocd' }, data: { url: 'https://argo' } };
    await apply([{ apiVersion: 'v1', kind: 'ConfigMap', ...settings }]);
    const checks = ['LoraAdapter', 'ServerPool'].map((kind) => `lorikeet.dev_${kind}`);
    const made = await plane.kubectl([
      ...['-n', 'argocd', 'create', 'configmap', 'argocd-cm', '--dry-run=client', '-o', 'yaml'],
      ...checks.map(
        (name) => `--from-file=resource.customizations.health.${name}=${EXAMPLES}argocd/health/${name}.lua`,
      ),
    ]);
    await plane.kubectl(['apply', '--server-side', '--field-manager=lorikeet-health', '-f', '-'], made);
    const kept = JSON.parse(await plane.kubectl(['-n', 'argocd', 'get', 'cm', 'argocd-cm', '-o', 'json']));
    expect(Object.keys(kept.data).sort()).toEqual([
      ...checks.map((name) => `resource.customizations.health.${name}`),
      'url',
    ]);
  });
});

describe('the examples', () => {
  it('of an Application have what Argo CD requires of one', () => {
    const [application] = manifestsOf('argocd/application.yaml');
    expect(application).toMatchObject({
      apiVersion: 'argoproj.io/v1alpha1',
      kind: 'Application',
      spec: {
        project: expect.any(String),
        source: { repoURL: expect.any(String), path: expect.any(String), targetRevision: expect.any(String) },
        destination: { server: expect.any(String), namespace: expect.any(String) },
        syncPolicy: { automated: expect.any(Object), syncOptions: ['ServerSideApply=true'] },
      },
    });
    expect(Object.keys(application?.spec as object).sort()).toEqual([
      ...['destination', 'project', 'source', 'syncPolicy'],
    ]);
  });

  it('of values are ones that the chart takes, and end where Kueue and a mesh look', async () => {
    const values = parse(read('server-values.yaml'));
    const manifests = await helmTemplate({ chart: CHARTS.server, values: { ...SERVER_VALUES, ...values } });
    const deployment = manifests.find(({ kind }) => kind === 'Deployment');
    expect(deployment?.metadata.labels).toMatchObject({ 'kueue.x-k8s.io/queue-name': 'serving' });
    expect(deploymentOf(manifests).template.metadata).toMatchObject({ annotations: values.podAnnotations });
  });

  it('and the chart scale by metrics that pods have, in as many words', async () => {
    const values = { ...SERVER_VALUES, autoscaling: { keda: { enabled: true } } };
    const manifests = await helmTemplate({ chart: CHARTS.server, values });
    const texts = [
      JSON.stringify(manifests),
      ...readdirSync(`${EXAMPLES}autoscaling`).map((file) => read(`autoscaling/${file}`)),
    ];
    for (const text of texts) {
      const named = [...text.matchAll(/vllm:[a-z_]+/g)].map(([name]) => name);
      expect(named).not.toEqual([]);
      expect(Object.values(VLLM)).toEqual(expect.arrayContaining(named));
    }
  });

  it.each([[{ autoscaling: { keda: { enabled: true } } }], [{ replicas: null }]])(
    'of autoscalers are not set back by an upgrade with %j',
    async (values) => {
      const manifests = await helmTemplate({ chart: CHARTS.server, values: { ...SERVER_VALUES, ...values } });
      expect(deploymentOf(manifests)).not.toHaveProperty('replicas');
      expect(manifests.map(({ kind }) => kind)).toContain('PodDisruptionBudget');
    },
  );
});
