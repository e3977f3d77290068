import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../../cluster/command.ts';
import { type RunningProcess, startProcess } from '../../cluster/process.ts';
import { eventually } from '../../support/eventually.ts';
import { toolPath } from '../../support/tools.ts';
import { makeCgroups } from './cgroups.ts';
import { containerdConfig, kubeletConfig, NETWORK, networkConfig } from './node-config.ts';

const START_TIMEOUT_MS = 60_000;
const STOP_GRACE_MS = 5_000;

/**
 * The mounts of a node: where programs write by custom are folders of its own. The kubelet sets some sysctls for the whole
 * machine; it finds here what it would set, and leaves them.
 */
const MOUNTS = `set -e
dir=$1
mount --bind "$dir/lib" /var/lib
mount --bind "$dir/log" /var/log
mount -t tmpfs tmpfs /run
sysctl() { echo "$2" > "$dir/sysctl-\${1##*/}"; mount --bind "$dir/sysctl-\${1##*/}" "/proc/sys/$1"; }
sysctl vm/overcommit_memory 1
sysctl vm/panic_on_oom 0
sysctl kernel/panic 10
sysctl kernel/panic_on_oops 1
sysctl kernel/keys/root_maxkeys 1000000
sysctl kernel/keys/root_maxbytes 25000000
: > "$dir/mounted"
exec sleep infinity`;

export interface RealNodeOptions {
  name: string;
  /** An address of the bridge, no other node's. */
  address: string;
  dir: string;
  kubeconfig: string;
  /** Below the root of each cgroup hierarchy. */
  cgroupRoot: string;
}

/** containerd and a kubelet, registered at an API server, with our images in store. */
export class RealNode {
  readonly name: string;
  readonly dir: string;
  readonly #processes: RunningProcess[] = [];
  readonly #options: RealNodeOptions;
  #holder: RunningProcess | undefined;

  private constructor(options: RealNodeOptions) {
    this.#options = options;
    this.name = options.name;
    this.dir = options.dir;
  }

  static async start(options: RealNodeOptions): Promise<RealNode> {
    const node = new RealNode(options);
    try {
      await node.#start();
    } catch (error) {
      await node.stop();
      throw error;
    }
    return node;
  }

  async #start(): Promise<void> {
    const { dir, kubeconfig, name, address, cgroupRoot } = this.#options;
    for (const folder of ['lib', 'log', 'network']) await mkdir(join(dir, folder), { recursive: true });
    await makeCgroups(cgroupRoot);
    await writeFile(join(dir, 'network', '10-bridge.conflist'), networkConfig(join(dir, '../pod-addresses')));
    await writeFile(join(dir, 'containerd.toml'), containerdConfig(dir));
    await writeFile(join(dir, 'resolv.conf'), '');
    await writeFile(join(dir, 'kubelet.json'), kubeletConfig({ dir, address, cgroupRoot }));
    this.#holder = await this.#spawn('holder', 'unshare', ['--mount', 'sh', '-c', MOUNTS, 'sh', dir]);
    await this.#until('its mounts are there', () => runCommand('test', ['-e', join(dir, 'mounted')]));

    await this.#spawnInside('containerd', 'containerd', ['--config', join(dir, 'containerd.toml')]);
    await this.#until('containerd answers', () => this.ctr(['version']));
    await this.ctr(['image', 'import', '--no-unpack', toolPath('images')]);
    await this.#spawnInside('kubelet', join(toolPath('node'), 'kubelet'), [
      `--config=${join(dir, 'kubelet.json')}`,
      `--kubeconfig=${kubeconfig}`,
      '--root-dir=/var/lib/kubelet',
      `--cert-dir=${join(dir, 'lib', 'certs')}`,
      `--hostname-override=${name}`,
      `--node-ip=${address}`,
    ]);
  }

  /** containerd's own client, in the namespace of Kubernetes' images and containers. */
  ctr(args: string[]): Promise<string> {
    const socket = '/run/containerd/containerd.sock';
    return runCommand('nsenter', [...this.#inside(), 'ctr', '--address', socket, '-n', 'k8s.io', ...args]);
  }

  #inside(): string[] {
    return [`--mount=/proc/${this.#holder?.pid}/ns/mnt`];
  }

  #spawnInside(name: string, command: string, args: string[]): Promise<RunningProcess> {
    return this.#spawn(name, 'nsenter', [...this.#inside(), command, ...args]);
  }

  async #spawn(name: string, command: string, args: string[]): Promise<RunningProcess> {
    const process = await startProcess({ command, args, logFile: join(this.dir, `${name}.log`) });
    this.#processes.push(process);
    return process;
  }

  async #until(what: string, attempt: () => Promise<string>): Promise<void> {
    await eventually(`node ${this.name}: ${what}`, { timeoutMs: START_TIMEOUT_MS }, async () => {
      const ended = this.#processes.find(({ exit }) => exit !== null);
      if (ended) return ended;
      await attempt();
      return 'yes' as const;
    }).then((outcome) => {
      if (outcome !== 'yes') throw new Error(`node ${this.name} ended while starting:\n${outcome.logTail()}`);
    });
  }

  /** Containers that still run end with the namespace that everything runs in. */
  async stop(): Promise<void> {
    for (const process of this.#processes.reverse()) await process.stop(STOP_GRACE_MS);
    this.#processes.length = 0;
  }
}

/** The bridge that the pods of all nodes are on, the one network of this namespace besides the loopback. */
export async function makeBridge(addresses: readonly string[]): Promise<void> {
  const ip = (...args: string[]) => runCommand('ip', args);
  await ip('link', 'set', 'lo', 'up');
  await ip('link', 'add', NETWORK.bridge, 'type', 'bridge');
  for (const address of addresses)
    await ip('addr', 'add', `${address}/${NETWORK.prefix}`, 'dev', NETWORK.bridge);
  await ip('link', 'set', NETWORK.bridge, 'up');
  // Nothing has a Service's address: the rules of the proxy make a pod's of it, once the kernel knows a way.
  await ip('route', 'add', NETWORK.services, 'dev', NETWORK.bridge);
  await writeFile('/proc/sys/net/ipv4/ip_forward', '1');
}

/** Services' addresses lead to pods by it. One does for all nodes, whose network is one. */
export function startProxy(dir: string, kubeconfig: string, node: string): Promise<RunningProcess> {
  return startProcess({
    command: join(toolPath('node'), 'kube-proxy'),
    args: [
      `--kubeconfig=${kubeconfig}`,
      '--proxy-mode=iptables',
      `--cluster-cidr=${NETWORK.cidr}`,
      // Pods are on one bridge: an answer would go past the rules that made of the Service a pod.
      '--masquerade-all',
      // Limits of the whole machine are left as they are.
      '--conntrack-max-per-core=0',
      '--conntrack-min=0',
      '--conntrack-tcp-timeout-established=0',
      '--conntrack-tcp-timeout-close-wait=0',
      '--bind-address=127.0.0.1',
      `--hostname-override=${node}`,
    ],
    logFile: join(dir, 'kube-proxy.log'),
  });
}
