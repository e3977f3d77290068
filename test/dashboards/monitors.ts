import { z } from 'zod';

/** A Prometheus operator, as far as our PodMonitors need one: what it makes a Prometheus scrape. */

const Labels = z.record(z.string(), z.string());

export const PodMonitor = z.object({
  metadata: z.object({ name: z.string(), namespace: z.string() }),
  spec: z.object({
    selector: z.object({ matchLabels: Labels }),
    namespaceSelector: z.object({ matchNames: z.array(z.string()) }),
    podMetricsEndpoints: z.array(
      z.object({
        port: z.string(),
        path: z.string(),
        honorLabels: z.boolean().default(false),
        relabelings: z.array(z.object({ targetLabel: z.string(), replacement: z.string() })).default([]),
      }),
    ),
  }),
});
export type PodMonitor = z.infer<typeof PodMonitor>;

export const ScrapedPod = z.object({
  metadata: z.object({ name: z.string(), namespace: z.string(), labels: Labels }),
  spec: z.object({
    containers: z.array(
      z.object({
        name: z.string(),
        ports: z.array(z.object({ name: z.string(), containerPort: z.number() })).default([]),
      }),
    ),
  }),
  status: z.object({ podIP: z.string().optional() }),
});
export type ScrapedPod = z.infer<typeof ScrapedPod>;

export interface ScrapeJob {
  job_name: string;
  honor_labels: boolean;
  metrics_path: string;
  static_configs: { targets: string[]; labels: Record<string, string> }[];
}

/** One job per endpoint; targets have the labels that a Prometheus operator gives them, and those of `relabelings`. */
export function jobsOf(monitors: readonly PodMonitor[], pods: readonly ScrapedPod[]): ScrapeJob[] {
  return monitors.flatMap(({ metadata, spec }) =>
    spec.podMetricsEndpoints.map(({ port, path, honorLabels, relabelings }, index) => ({
      job_name: `podMonitor/${metadata.namespace}/${metadata.name}/${index}`,
      honor_labels: honorLabels,
      metrics_path: path,
      static_configs: pods
        .filter((pod) => isChosen(spec, pod))
        .flatMap((pod) => targetsOf(pod, port))
        .map(({ target, labels }) => ({
          targets: [target],
          labels: {
            ...labels,
            ...Object.fromEntries(relabelings.map((rule) => [rule.targetLabel, rule.replacement])),
          },
        })),
    })),
  );
}

function isChosen({ selector, namespaceSelector }: PodMonitor['spec'], { metadata }: ScrapedPod): boolean {
  const { namespace, labels } = metadata;
  const wanted = Object.entries(selector.matchLabels);
  return (
    namespaceSelector.matchNames.includes(namespace) && wanted.every(([key, value]) => labels[key] === value)
  );
}

function targetsOf({ metadata, spec, status }: ScrapedPod, portName: string) {
  const { name: pod, namespace } = metadata;
  return spec.containers.flatMap(({ name: container, ports }) =>
    ports
      .filter(({ name }) => name === portName)
      .map(({ containerPort }) => ({
        target: `${status.podIP}:${containerPort}`,
        labels: { namespace, pod, container, endpoint: portName },
      })),
  );
}
