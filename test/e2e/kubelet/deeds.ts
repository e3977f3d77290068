import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { helm } from '../../cluster/helm.ts';
import type { SeenPod } from '../objects.ts';
import { NAMESPACE, type World } from '../world.ts';
import type { Nodes } from './cluster.ts';

type RealWorld = World<Nodes>;

/** Runs helm in a namespace. */
export function helmOf({ plane }: RealWorld) {
  return (namespace: string, args: string[]) =>
    helm([...args, '-n', namespace], { kubeconfig: plane.kubeconfig });
}

/** A Deployment is rolled out. */
export async function ready({ plane }: RealWorld, namespace: string, name: string): Promise<void> {
  await plane.kubectl(['rollout', 'status', `deployment/${name}`, '-n', namespace, '--timeout=180s']);
}

export async function serviceAddress({ plane }: RealWorld, namespace: string, name: string): Promise<string> {
  const get = ['get', 'service', name, '-n', namespace, '-o', 'jsonpath={.spec.clusterIP}'];
  return await plane.kubectl(get);
}

/** Many, each smaller than the server: the kernel's choice falls on the largest. */
const HOGS =
  'for i in $(seq 60); do (held=$(head -c 20000000 /dev/zero | tr "\\0" x); sleep 600) & done; wait';

/** Others in the pod take memory until its limit, and the kernel chooses the server to end. Answers how they ended. */
export async function killByMemory(world: RealWorld, pod: SeenPod): Promise<string> {
  for (const pid of await processesOf(pod)) await writeFile(`/proc/${pid}/oom_score_adj`, '1000');
  const exec = ['exec', pod.name, '-n', NAMESPACE, '--', 'bash', '-c', HOGS];
  // They end with the container, which is a failure.
  return await world.plane.kubectl(exec).catch((error: unknown) => String(error).slice(-300));
}

/** Server processes of a pod; its uid is in the names of its cgroups. */
async function processesOf({ uid }: SeenPod): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found: string[] = [];
  for (const pid of pids) {
    const cgroup = await readFile(join('/proc', pid, 'cgroup'), 'utf8').catch(() => '');
    const command = await readFile(join('/proc', pid, 'cmdline'), 'utf8').catch(() => '');
    if (cgroup.includes(uid) && command.includes('server/main.ts')) found.push(pid);
  }
  return found;
}
