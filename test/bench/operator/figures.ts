import type { BenchCluster } from './cluster.ts';
import type { OperatorProcess } from './process.ts';

/** What all calls together waited, so that it may be more than the time that passed. */
const TURNS = 'lorikeet_operator_api_wait_seconds_sum';

/** What pods, real or stand-ins, have been asked for. */
export interface FleetFigures {
  readonly sentBytes: number;
  readonly stages: number;
  readonly activations: number;
}

export type Start = () => Promise<OperatorProcess>;

/** What one step costs the operator, the pods and the API server, as one line; of one that starts, all since then. */
export async function figuresOf(
  title: string,
  { pods, cluster, open }: { pods: FleetFigures; cluster: BenchCluster; open: OperatorProcess | Start },
  act: (operator: OperatorProcess) => Promise<unknown>,
): Promise<string> {
  const read = async (process: OperatorProcess | null) => ({
    ...{ bytes: pods.sentBytes, stages: pods.stages, activations: pods.activations },
    cpu: process?.cpuSeconds ?? 0,
    turns: (await process?.metric(TURNS)) ?? 0,
    ...{ status: await cluster.writes('status'), all: await cluster.writes('all') },
  });
  const before = await read(typeof open === 'function' ? null : open);
  const startMs = performance.now();
  const operator = typeof open === 'function' ? await open() : open;
  await act(operator);
  const seconds = (performance.now() - startMs) / 1000;
  const after = await read(operator);
  const parts = [
    `${seconds.toFixed(1)} s`,
    `${(after.cpu - before.cpu).toFixed(1)} s CPU`,
    `${(after.turns - before.turns).toFixed(0)} s in all for turns at the API server`,
    `peak ${operator.peakMiB.toFixed(0)} MiB`,
    `${((after.bytes - before.bytes) / 1e6).toFixed(1)} MB from pods`,
    `${after.stages - before.stages} loads, ${after.activations - before.activations} activations`,
    `${after.status - before.status} status writes of ${after.all - before.all} writes`,
  ];
  return `  ${title.padEnd(8)} ${parts.join('; ')}`;
}
