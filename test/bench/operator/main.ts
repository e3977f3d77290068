import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../../support/eventually.ts';
import { readOptions } from '../../support/options.ts';
import { BenchCluster } from './cluster.ts';
import { figuresOf } from './figures.ts';
import { measureFleet } from './fleet.ts';
import { BenchPods } from './pods.ts';
import { OperatorProcess } from './process.ts';
import { change, PATIENCE, say, settled } from './steps.ts';

/**
 * How time, memory and traffic of an operator grow with adapters and pods: a real API server and object store, the
 * operator as a process, pods with the real admin API in this one, all on this machine.
 */

const USAGE = `usage: npm run bench -- operator [--adapters N[,N…]] [--pods N] [--quiet SECONDS] [--stand-ins]
  --adapters   in an object store, each on all pods; 100,300,1000 by default, one after the other, each in a new cluster
  --pods       2 by default
  --quiet      how long nobody changes anything, and writes are counted; 60 by default
  --stand-ins  pods without bytes, 200 by default, that one server speaks for: each adapter on two of them, then all on all`;

const values = readOptions(USAGE, {
  options: {
    adapters: { type: 'string', default: '100,300,1000' },
    pods: { type: 'string' },
    'stand-ins': { type: 'boolean', default: false },
    quiet: { type: 'string', default: '60' },
  },
});

async function measure(adapters: number, podCount: number, quietSeconds: number): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-bench-'));
  const pods = await BenchPods.start(podCount);
  const cluster = await BenchCluster.start(pods);
  const operator = (name: string) => OperatorProcess.start(dir, name, cluster.plane.kubeconfig);
  let running: OperatorProcess | null = null;
  try {
    await cluster.createAdapters(adapters);
    say(`\n${adapters} adapters x ${podCount} pods`);
    const allReady = () =>
      eventually('all are ready', PATIENCE, () => cluster.ready.size === adapters || undefined);
    const figures = async (title: string, act: (operator: OperatorProcess) => Promise<unknown>) => {
      const open =
        running ??
        (async () => {
          running = await operator(title);
          return running;
        });
      say(await figuresOf(title, { pods, cluster, open }, act));
    };
    await figures('start', allReady);
    await figures('changed', () => change(cluster, pods));
    await sleep(5_000);
    await figures('quiet', () => sleep(quietSeconds * 1000));
    await (running as OperatorProcess | null)?.stop();
    running = null;
    await figures('restart', (process) => settled(process));
    await figures('deleted', async () => {
      await cluster.deleteAll();
      await eventually('all are gone', PATIENCE, () => cluster.known.size === 0 || undefined);
    });
  } finally {
    await (running as OperatorProcess | null)?.stop();
    await cluster.stop();
    await pods.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

const [cpu] = cpus();
say(`${cpu?.model.trim()}, ${cpus().length} CPUs; operator, API server, object store and pods share them`);
for (const adapters of values.adapters.split(',').map(Number)) {
  const [pods, quietSeconds] = [Number(values.pods ?? (values['stand-ins'] ? 200 : 2)), Number(values.quiet)];
  await (values['stand-ins'] ? measureFleet : measure)(adapters, pods, quietSeconds);
}
