import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../../support/eventually.ts';
import { BenchCluster } from './cluster.ts';
import { figuresOf, type Start } from './figures.ts';
import { OperatorProcess } from './process.ts';
import { StandIns } from './stand-ins.ts';
import { change, PATIENCE, say, settled } from './steps.ts';

const TWO = { mode: 'Fixed', replicas: 2 };
const ALL = { mode: 'All', replicas: null };

/**
 * `filled`: an operator brings each adapter to two pods. `adopted`: all pods hold all adapters, which are asked for
 * everywhere; only status is behind. `cold`: the next operator finds everything as it should be.
 */
export async function measureFleet(adapters: number, podCount: number, quietSeconds: number): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-bench-'));
  const pods = await StandIns.start(podCount);
  const cluster = await BenchCluster.start(pods);
  let running: OperatorProcess | null = null;
  const open = (name: string): Start => {
    return async () => {
      running = await OperatorProcess.start(dir, name, cluster.plane.kubeconfig);
      return running;
    };
  };
  const close = async () => {
    await running?.stop();
    running = null;
  };
  const figures = async (title: string, act: (operator: OperatorProcess) => Promise<unknown>) => {
    say(await figuresOf(title, { pods, cluster, open: running ?? open(title) }, act));
  };
  const are = (summary: string) =>
    eventually(`all are ${summary}`, PATIENCE, () => cluster.countOf(summary) === adapters || undefined);
  try {
    await cluster.createAdapters(adapters, TWO);
    say(`\n${adapters} adapters x ${podCount} pods that one server speaks for`);
    await figures('filled', () => are('2/2'));
    await close();
    await cluster.place(ALL);
    pods.spread();
    await figures('adopted', () => are(`${podCount}/${podCount}`));
    await close();
    await figures('cold', settled);
    await figures('changed', () => change(cluster, pods));
    await sleep(5_000);
    await figures('quiet', () => sleep(quietSeconds * 1000));
  } finally {
    await close();
    await cluster.stop();
    await pods.stop();
    await rm(dir, { recursive: true, force: true });
  }
}
