import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Labels, Prometheus } from './prometheus.ts';
import { allRules, RULES_FILE } from './rules.ts';

interface Recorded {
  alert: string;
  /** Why the fault is not made in the world. */
  why: string;
  series: {
    /** Selects one series of the running world. */
    from: string;
    /** Labels that it has once the fault is there. */
    labels?: Labels;
    /** In promtool's notation, a value every 30 s. */
    fault: string;
    health: string;
  }[];
}

const served = 'lorikeet_requests_total{endpoint="/v1/chat/completions",code="200"}';

/** Alerts whose fault cannot be made within seconds: the series are those of the world, their values are not. */
export const RECORDED: Recorded[] = [
  {
    alert: 'LorikeetEngineHung',
    why: 'no request makes an engine hang, and a stopped process answers no scrape',
    series: [
      { from: 'lorikeet_engine_steps_total', fault: '0+5x20 100x20', health: '0+5x40' },
      { from: 'vllm:num_requests_running', fault: '2x40', health: '2x40' },
    ],
  },
  {
    alert: 'LorikeetRequestsFail',
    why: 'no request is known that a server answers with 500',
    series: [
      { from: served, fault: '0+50x40', health: '0+50x40' },
      { from: served, labels: { code: '500' }, fault: '0+1x40', health: '0x40' },
    ],
  },
  {
    alert: 'LorikeetOperatorErrors',
    why: 'nothing is known that makes an operator fail so',
    series: [
      {
        from: 'lorikeet_operator_reconcile_errors_total{reason="AdapterIncompatible"}',
        labels: { reason: 'InternalError' },
        fault: '0+1x40',
        health: '1x40',
      },
    ],
  },
];

const AT = '20m';

/** Whether the alert fires, by promtool and the rules as they stand, where the values are those of the fault, and of health. */
export async function tellsFromRecording(
  folder: string,
  { alert, series }: Recorded,
  world: Pick<Prometheus, 'query'>,
): Promise<{ fault: boolean; health: boolean }> {
  const severity = allRules().find((rule) => rule.alert === alert)?.labels.severity;
  const inputs = await Promise.all(
    series.map(async ({ from, labels = {}, ...values }) => {
      const [found] = await world.query(`last_over_time(${from}[5m])`);
      if (found === undefined) throw new Error(`the world has no series ${from}`);
      // `last_over_time` drops no name; the labels are the scrape's.
      const name = found.labels.__name__ ?? from.replace(/\{.*/, '');
      const { __name__: _, ...own } = { ...found.labels, ...labels };
      return { series: name + textOf(own), instance: own.instance, ...values };
    }),
  );
  const expected = `ALERTS${textOf({ alertname: alert, alertstate: 'firing', instance: inputs[0]?.instance ?? '', severity: severity ?? '' })}`;
  const fires = async (values: 'fault' | 'health') => {
    const expr = `ALERTS{alertname="${alert}",alertstate="firing"}`;
    const samples = values === 'fault' ? [{ labels: expected, value: 1 }] : [];
    const test = {
      interval: '30s',
      input_series: inputs.map((input) => ({ series: input.series, values: input[values] })),
      promql_expr_test: [{ expr, eval_time: AT, exp_samples: samples }],
    };
    await promtool(folder, { rule_files: [RULES_FILE], evaluation_interval: '30s', tests: [test] });
    return values === 'fault';
  };
  return { fault: await fires('fault'), health: await fires('health') };
}

/** Throws what promtool says where the samples are others. */
async function promtool(folder: string, file: object): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-promtool-'));
  try {
    await writeFile(join(dir, 'test.yaml'), JSON.stringify(file));
    await promisify(execFile)(join(folder, 'promtool'), ['test', 'rules', join(dir, 'test.yaml')]);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

const textOf = (labels: Labels) =>
  `{${Object.entries(labels)
    .map(([name, value]) => `${name}=${JSON.stringify(value)}`)
    .join(',')}}`;
