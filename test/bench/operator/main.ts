import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../../support/eventually.ts';
import { readOptions } from '../../support/options.ts';
import { adapterName, BenchCluster } from './cluster.ts';
import { BenchPods } from './pods.ts';
import { OperatorProcess } from './process.ts';

/**
 * How time, memory and traffic of an operator grow with adapters and pods: a real API server and object store, the
 * operator as a process, pods with the real admin API in this one, all on this machine.
 */

const USAGE = `usage: npm run bench -- operator [--adapters N[,N…]] [--pods N] [--quiet SECONDS]
  --adapters   in an object store, each on all pods; 100,300,1000 by default, one after the other, each in a new cluster
  --pods       2 by default
  --quiet      how long nobody changes anything, and writes are counted; 60 by default`;

const PATIENCE = { timeoutMs: 1_800_000, everyMs: 50 };

/** What all calls together waited, so that it may be more than the time that passed. */
const TURNS = 'lorikeet_operator_api_wait_seconds_sum';

const values = readOptions(USAGE, {
  options: {
    adapters: { type: 'string', default: '100,300,1000' },
    pods: { type: 'string', default: '2' },
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
      if (running === null) running = await operator(title);
      const before = { bytes: pods.sentBytes, stages: pods.stages, activations: pods.activations };
      const cpu = running.cpuSeconds;
      const turns = await running.metric(TURNS);
      const [status, all] = [await cluster.writes('status'), await cluster.writes('all')];
      const startMs = performance.now();
      await act(running);
      const seconds = (performance.now() - startMs) / 1000;
      const parts = [
        `${seconds.toFixed(1)} s`,
        `${(running.cpuSeconds - cpu).toFixed(1)} s CPU`,
        `${((await running.metric(TURNS)) - turns).toFixed(0)} s in all for turns at the API server`,
        `peak ${running.peakMiB.toFixed(0)} MiB`,
        `${((pods.sentBytes - before.bytes) / 1e6).toFixed(1)} MB from pods`,
        `${pods.stages - before.stages} loads, ${pods.activations - before.activations} activations`,
        `${(await cluster.writes('status')) - status} status writes of ${(await cluster.writes('all')) - all} writes`,
      ];
      say(`  ${title.padEnd(8)} ${parts.join('; ')}`);
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

/** New content for one adapter, from the annotation to the last pod that serves it. */
async function change(cluster: BenchCluster, pods: BenchPods): Promise<void> {
  const name = adapterName(0);
  const digest = await cluster.putContent(name, 1_000_000);
  await cluster.refresh(name);
  await eventually('all pods serve it', PATIENCE, () => pods.without(name, digest) === 0 || undefined);
}

/** Every adapter was looked at, and no look waits. */
async function settled(operator: OperatorProcess): Promise<void> {
  let calm = 0;
  await eventually('it has looked at everything', PATIENCE, async () => {
    const waiting = await operator.metric('lorikeet_operator_queue_depth');
    const leads = await operator.metric('lorikeet_operator_leader');
    calm = waiting === 0 && leads === 1 ? calm + 1 : 0;
    return calm === 10 || undefined;
  });
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

const [cpu] = cpus();
say(`${cpu?.model.trim()}, ${cpus().length} CPUs; operator, API server, object store and pods share them`);
for (const adapters of values.adapters.split(',').map(Number)) {
  await measure(adapters, Number(values.pods), Number(values.quiet));
}
