import { eventually } from '../../support/eventually.ts';
import type { BenchCluster } from './cluster.ts';
import type { OperatorProcess } from './process.ts';

export const PATIENCE = { timeoutMs: 1_800_000, everyMs: 50 };

export const adapterName = (index: number): string => `adapter-${index}`;

/** New content for one adapter, from the annotation to the last pod that serves it. */
export async function change(
  cluster: BenchCluster,
  pods: { without(name: string, digest: string): number },
): Promise<void> {
  const name = adapterName(0);
  const digest = await cluster.putContent(name, 1_000_000);
  await cluster.refresh(name);
  await eventually('all pods serve it', PATIENCE, () => pods.without(name, digest) === 0 || undefined);
}

/** Every adapter was looked at, and no look waits. */
export async function settled(operator: OperatorProcess): Promise<void> {
  let calm = 0;
  await eventually('it has looked at everything', PATIENCE, async () => {
    const waiting = await operator.metric('lorikeet_operator_queue_depth');
    const leads = await operator.metric('lorikeet_operator_leader');
    calm = waiting === 0 && leads === 1 ? calm + 1 : 0;
    return calm === 10 || undefined;
  });
}

export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
