import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { networkInterfaces, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { runCommand } from '../../cluster/command.ts';
import { listCgroups, removeCgroups } from './cgroups.ts';

const PREFIX = 'lorikeet-e2e-';
/** Where the programs of a node write by custom. */
const PLACES = [
  '/etc/cni',
  '/opt/cni',
  '/opt/containerd',
  '/run/containerd',
  '/run/netns',
  '/var/lib/cni',
  '/var/lib/containerd',
  '/var/lib/containers',
  '/var/lib/kubelet',
  '/var/log/containers',
  '/var/log/pods',
];
/** What a kubelet and a proxy set for the whole machine. */
const SYSCTLS = [
  'kernel/keys/root_maxbytes',
  'kernel/keys/root_maxkeys',
  'kernel/panic',
  'kernel/panic_on_oops',
  'net/ipv4/ip_forward',
  'vm/overcommit_memory',
  'vm/panic_on_oom',
];

/** Of one run: everything that it writes is in it. */
export function makeRunDir(): Promise<string> {
  return mkdtemp(join(tmpdir(), `${PREFIX}${process.pid}-`));
}

/** Where the cgroups of a run are, below each hierarchy's root. */
export function cgroupRootOf(dir: string): string {
  return `/${basename(dir)}`;
}

/** After the last process of the run is gone. */
export async function removeRun(dir: string): Promise<void> {
  await removeCgroups(cgroupRootOf(dir));
  await rm(dir, { recursive: true, force: true });
}

/** What runs left that were killed. */
export async function clearTraces(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) await removeRun(join(tmpdir(), name));
  }
}

/** Of whatever a run could leave on the machine, a line each. */
export async function listTraces(): Promise<string[]> {
  const [mounts, rules, cgroups, processes, folders, files, sysctls] = await Promise.all([
    readFile('/proc/self/mounts', 'utf8'),
    runCommand('iptables-save', []),
    listCgroups(),
    programs(),
    readdir(tmpdir()),
    Promise.all(PLACES.map(entriesOf)),
    Promise.all(SYSCTLS.map(async (name) => `${name}=${await readFile(join('/proc/sys', name), 'utf8')}`)),
  ]);
  return [
    ...mounts.split('\n').map((line) => `mount ${line}`),
    ...rules
      .split('\n')
      .filter((line) => line.startsWith('-A'))
      .map((line) => `rule ${line}`),
    ...cgroups.map((path) => `cgroup ${path}`),
    ...processes.map((name) => `process ${name}`),
    ...folders.filter((name) => name.startsWith(PREFIX)).map((name) => `folder ${name}`),
    ...files.flat().map((path) => `file ${path}`),
    ...Object.keys(networkInterfaces()).map((name) => `interface ${name}`),
    ...sysctls.map((line) => `sysctl ${line.trim()}`),
  ];
}

async function entriesOf(place: string): Promise<string[]> {
  if (!existsSync(place)) return [];
  return [place, ...(await readdir(place)).map((name) => join(place, name))];
}

/** Processes of a node that anyone runs on this machine. */
async function programs(): Promise<string[]> {
  const ours = /^(containerd|containerd-shim|runc|kubelet|kube-proxy|node-all|pause)/;
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const names = await Promise.all(
    pids.map(async (pid) => {
      const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
      return ours.test(name) ? [`${pid} ${name.trim()}`] : [];
    }),
  );
  return names.flat();
}
