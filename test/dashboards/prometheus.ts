import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { freePort } from '../cluster/free-port.ts';
import { startProcess } from '../cluster/process.ts';
import { eventually } from '../support/eventually.ts';
import type { ScrapeJob } from './monitors.ts';

const START_TIMEOUT_MS = 60_000;
const STOP_GRACE_MS = 5_000;

const Labels = z.record(z.string(), z.string());
const Sample = z.tuple([z.number(), z.string()]);
const Reply = z.object({
  status: z.literal('success'),
  data: z.object({
    result: z.array(
      z.object({ metric: Labels, value: Sample.optional(), values: z.array(Sample).optional() }),
    ),
  }),
});

export interface Series {
  labels: Record<string, string>;
  /** Seconds since 1970, and the value there. */
  points: [atSeconds: number, value: number][];
}

export interface Range {
  startSeconds: number;
  endSeconds: number;
  stepSeconds: number;
}

export interface Prometheus {
  url: string;
  /** What an expression is now. */
  query(expr: string): Promise<Series[]>;
  queryRange(expr: string, range: Range): Promise<Series[]>;
  /** As Grafana's label_values(selector, label). */
  labelValues(selector: string, label: string): Promise<string[]>;
  stop(): Promise<void>;
}

export interface PrometheusOptions {
  /** Folder of the command. */
  folder: string;
  jobs: readonly ScrapeJob[];
  scrapeSeconds: number;
}

/** A real Prometheus that scrapes these jobs. */
export async function startPrometheus(options: PrometheusOptions): Promise<Prometheus> {
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-prometheus-'));
  const config = join(dir, 'prometheus.json');
  const interval = `${options.scrapeSeconds}s`;
  const global = { scrape_interval: interval, scrape_timeout: interval, evaluation_interval: interval };
  // JSON is YAML.
  await writeFile(config, JSON.stringify({ global, scrape_configs: options.jobs }));
  const address = `127.0.0.1:${await freePort()}`;
  const args = [
    `--config.file=${config}`,
    `--storage.tsdb.path=${dir}/data`,
    `--web.listen-address=${address}`,
  ];
  const server = await startProcess({
    command: join(options.folder, 'prometheus'),
    args,
    logFile: join(dir, 'prometheus.log'),
  });
  const url = `http://${address}`;
  const stop = async () => {
    await server.stop(STOP_GRACE_MS);
    await rm(dir, { recursive: true, force: true });
  };
  try {
    await eventually('Prometheus is ready', { timeoutMs: START_TIMEOUT_MS }, async () => {
      if (server.exit !== null) throw new Error(server.logTail());
      return (await fetch(`${url}/-/ready`)).ok || undefined;
    });
  } catch (error) {
    await stop();
    throw error;
  }
  return { url, ...callsOf(url), stop };
}

function callsOf(url: string): Pick<Prometheus, 'query' | 'queryRange' | 'labelValues'> {
  const call = async (path: string, params: Record<string, string>): Promise<unknown> => {
    const response = await fetch(`${url}/api/v1/${path}`, {
      method: 'POST',
      body: new URLSearchParams(params),
    });
    const body: unknown = await response.json();
    if (!response.ok) throw new Error(`${params.query}: ${JSON.stringify(body)}`);
    return body;
  };
  const seriesOf = (body: unknown) =>
    Reply.parse(body).data.result.map(({ metric, value, values }) => ({
      labels: metric,
      points: (values ?? (value === undefined ? [] : [value])).map(([at, text]): [number, number] => [
        at,
        Number(text),
      ]),
    }));
  return {
    query: async (query) => seriesOf(await call('query', { query })),
    queryRange: async (query, { startSeconds, endSeconds, stepSeconds }) =>
      seriesOf(
        await call('query_range', {
          query,
          start: String(startSeconds),
          end: String(endSeconds),
          step: String(stepSeconds),
        }),
      ),
    labelValues: async (selector, label) => {
      const body = await call('series', { 'match[]': selector });
      const { data } = z.object({ data: z.array(Labels) }).parse(body);
      return [...new Set(data.flatMap((labels) => labels[label] ?? []))].sort();
    },
  };
}
