import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { freePort } from '../cluster/free-port.ts';
import { startProcess } from '../cluster/process.ts';
import { eventually } from '../support/eventually.ts';
import type { Rules } from './rules.ts';

const Labels = z.record(z.string(), z.string());
export type Labels = z.infer<typeof Labels>;

const Alerts = z.object({
  data: z.object({
    alerts: z.array(
      z.object({ state: z.string(), labels: Labels, annotations: z.record(z.string(), z.string()) }),
    ),
  }),
});
const Vector = z.object({
  data: z.object({ result: z.array(z.object({ metric: Labels, value: z.tuple([z.number(), z.string()]) })) }),
});

export interface Firing {
  labels: Labels;
  annotations: Record<string, string>;
}

export interface Prometheus {
  /** What fires at this moment. */
  firing(): Promise<Firing[]>;
  /** The series that an expression has now. */
  query(expr: string): Promise<{ labels: Labels; value: number }[]>;
  stop(): Promise<void>;
}

/** A real one, of `folder`, that scrapes and evaluates every second. Targets are `host:port`. */
export async function startPrometheus(
  folder: string,
  { targets, rules }: { targets: readonly string[]; rules: Rules },
): Promise<Prometheus> {
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-prometheus-'));
  // JSON is YAML too.
  await writeFile(join(dir, 'rules.yaml'), JSON.stringify(rules));
  const config = {
    global: { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '1s' },
    rule_files: ['rules.yaml'],
    scrape_configs: [{ job_name: 'lorikeet', static_configs: [{ targets }] }],
  };
  await writeFile(join(dir, 'prometheus.yaml'), JSON.stringify(config));
  const address = `127.0.0.1:${await freePort()}`;
  const process = await startProcess({
    command: join(folder, 'prometheus'),
    args: [
      `--config.file=${join(dir, 'prometheus.yaml')}`,
      `--storage.tsdb.path=${join(dir, 'data')}`,
      `--web.listen-address=${address}`,
    ],
    logFile: join(dir, 'log'),
  });
  const get = async (path: string) => await (await fetch(`http://${address}/api/v1/${path}`)).json();
  const query = async (expr: string) => {
    const { data } = Vector.parse(await get(`query?query=${encodeURIComponent(expr)}`));
    return data.result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
  };
  await eventually(`Prometheus has scraped:\n${process.logTail()}`, { timeoutMs: 30_000 }, async () =>
    (await query('up == 1')).length === targets.length ? true : undefined,
  );
  return {
    query,
    firing: async () =>
      Alerts.parse(await get('alerts')).data.alerts.filter(({ state }) => state === 'firing'),
    stop: async () => {
      await process.stop(3_000);
      await rm(dir, { recursive: true, force: true });
    },
  };
}
