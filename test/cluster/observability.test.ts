import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { describe, expect, it } from 'vitest';
import { dashboardFiles } from '../../operator/telemetry/dashboards/generate.ts';
import { CASES, kindsOf, SERVER_VALUES } from './chart-cases.ts';
import { CHARTS, helmTemplate, type Manifest } from './helm.ts';

const MONITORS = ['PodMonitor', 'ServiceMonitor'];
const MONITOR = { labels: { release: 'prometheus' }, namespace: 'monitoring', interval: '15s' };
const withMonitor = (kind: string, more: object = {}) => ({ metrics: { monitor: { kind, ...more } } });

interface Endpoint {
  port: string;
  path: string;
  interval?: string;
  relabelings?: { targetLabel: string; replacement: string }[];
}

interface MonitorSpec {
  selector: { matchLabels: Record<string, string> };
  namespaceSelector: { matchNames: string[] };
  endpoints?: Endpoint[];
  podMetricsEndpoints?: Endpoint[];
}

interface Labelled {
  metadata?: { labels?: Record<string, string> };
  spec: {
    template: { metadata: { labels: Record<string, string> } } & {
      spec: { containers: { ports: { name: string; containerPort: number }[] }[] };
    };
    ports: { name: string }[];
  };
}

function isChosenBy({ matchLabels }: MonitorSpec['selector'], labels: Record<string, string> = {}): boolean {
  return Object.entries(matchLabels).every(([name, value]) => labels[name] === value);
}

describe.each(CASES)('the chart $title', ({ chart, values }) => {
  it('makes no monitor unless asked', async () => {
    const kinds = kindsOf(await helmTemplate({ chart, values }));
    expect(kinds.filter((kind) => MONITORS.includes(kind))).toEqual([]);
  });

  it.each(MONITORS)('makes a %s as it is asked to', async (kind) => {
    const manifests = await helmTemplate({ chart, values: { ...values, ...withMonitor(kind, MONITOR) } });
    const [monitor, ...more] = manifests.filter((manifest) => MONITORS.includes(manifest.kind));
    expect(more).toEqual([]);
    expect(monitor).toMatchObject({ apiVersion: 'monitoring.coreos.com/v1', kind });
    expect(monitor?.metadata).toMatchObject({ namespace: 'monitoring', labels: MONITOR.labels });
    const { endpoints, podMetricsEndpoints, namespaceSelector } = (monitor as Manifest).spec as MonitorSpec;
    expect(namespaceSelector).toEqual({ matchNames: ['test'] });
    const [endpoint] = (kind === 'PodMonitor' ? podMetricsEndpoints : endpoints) ?? [];
    expect(endpoint).toMatchObject({ path: '/metrics', interval: '15s' });
  });

  it('has a PodMonitor that chooses its pods, and a port that they have', async () => {
    const all = { ...values, ...withMonitor('PodMonitor') };
    const manifests = await helmTemplate({ chart, values: all });
    const { selector, podMetricsEndpoints } = find(manifests, 'PodMonitor').spec as MonitorSpec;
    const { template } = (find(manifests, 'Deployment') as unknown as Labelled).spec;
    expect(isChosenBy(selector, template.metadata.labels)).toBe(true);
    const ports = template.spec.containers[0]?.ports.map(({ name }) => name);
    expect(ports).toContain(podMetricsEndpoints?.[0]?.port);
  });

  it('has a ServiceMonitor that chooses one Service, and a port that it has', async () => {
    const all = { ...values, ...withMonitor('ServiceMonitor') };
    // With it the pool's chart has a second Service.
    const manifests = await helmTemplate({
      chart,
      values: chart === CHARTS.server ? { ...all, vllmDialect: true } : all,
    });
    const { selector, endpoints } = find(manifests, 'ServiceMonitor').spec as MonitorSpec;
    const services = manifests.filter(({ kind }) => kind === 'Service');
    expect(services.length).toBe(2);
    const [service, ...more] = services.filter(({ metadata }) => isChosenBy(selector, metadata.labels));
    expect(more).toEqual([]);
    const { ports } = (service as unknown as Labelled).spec;
    expect(ports.map(({ name }) => name)).toContain(endpoints?.[0]?.port);
  });
});

it.each(MONITORS)('series of server pods get their pool from a %s', async (kind) => {
  const values = { ...SERVER_VALUES, ...withMonitor(kind), fullnameOverride: 'parrot' };
  const manifests = await helmTemplate({ chart: CHARTS.server, values });
  const { endpoints, podMetricsEndpoints } = find(manifests, kind).spec as MonitorSpec;
  const [endpoint] = endpoints ?? podMetricsEndpoints ?? [];
  const pool = find(manifests, 'ServerPool').metadata.name;
  expect(endpoint?.relabelings).toEqual([{ targetLabel: 'pool', replacement: pool }]);
});

describe('dashboards', () => {
  const chart = CHARTS.operator;
  const maps = async (dashboards: object) =>
    (await helmTemplate({ chart, values: { dashboards } })).filter(({ kind }) => kind === 'ConfigMap');

  it('are not there unless asked for', async () => {
    expect(await maps({})).toEqual([]);
  });

  it('are in one ConfigMap each, with the label that the sidecar of Grafana looks for', async () => {
    const found = await maps({ enabled: true });
    expect(found.map(({ metadata }) => metadata.labels?.grafana_dashboard)).toEqual(['1', '1', '1']);
    const written = [...dashboardFiles()].map(([file]) => [
      `lorikeet-${basename(file)}`,
      readFileSync(file, 'utf8').trimEnd(),
    ]);
    expect(Object.assign({}, ...found.map(({ data }) => data))).toEqual(Object.fromEntries(written));
  });

  it('are where and what a sidecar wants', async () => {
    const annotations = { grafana_folder: 'Lorikeet' };
    const [first] = await maps({
      enabled: true,
      namespace: 'monitoring',
      labels: { grafana_dashboard: 'yes', team: 'ml' },
      annotations,
    });
    expect(first?.metadata).toMatchObject({
      namespace: 'monitoring',
      annotations,
      labels: { grafana_dashboard: 'yes', team: 'ml' },
    });
  });
});

function find(manifests: Manifest[], kind: string): Manifest {
  const found = manifests.find((manifest) => manifest.kind === kind);
  if (found === undefined) throw new Error(`no ${kind} among ${kindsOf(manifests).join(', ')}`);
  return found;
}
