import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { startControlPlane } from '../../cluster/control-plane.ts';
import { startObjectStore } from '../../cluster/object-store.ts';
import type { RunningProcess } from '../../cluster/process.ts';
import { eventually } from '../../support/eventually.ts';
import { World } from '../world.ts';
import { makeBridge, RealNode, startProxy } from './node.ts';
import { NETWORK } from './node-config.ts';
import { cgroupRootOf } from './traces.ts';

const NODES = [
  { name: 'node-a', address: NETWORK.gateway },
  { name: 'node-b', address: '10.88.0.2' },
] as const;
const PROXY_GRACE_MS = 2_000;

/** The nodes of the cluster, and what makes Services of addresses. */
export class Nodes {
  readonly all: readonly RealNode[];
  readonly #proxy: RunningProcess;

  constructor(all: readonly RealNode[], proxy: RunningProcess) {
    this.all = all;
    this.#proxy = proxy;
  }

  async stop(): Promise<void> {
    await this.#proxy.stop(PROXY_GRACE_MS);
    await Promise.all(this.all.map((node) => node.stop()));
  }
}

/** A control plane, an object store and nodes on a bridge; nothing of ours yet. */
export async function startRealWorld(count = NODES.length): Promise<World<Nodes>> {
  // The folder of the run, which main.ts made and removes.
  const dir = tmpdir();
  const places = NODES.slice(0, count);
  await makeBridge(places.map(({ address }) => address));
  const host = NETWORK.gateway;
  const plane = await startControlPlane({ controllers: true, host });
  const store = await startObjectStore(host);
  const nodes = await Promise.all(
    places.map(async (place) => {
      const nodeDir = join(dir, place.name);
      await mkdir(nodeDir);
      const cgroupRoot = `${cgroupRootOf(dir)}/${basename(nodeDir)}`;
      return RealNode.start({ ...place, dir: nodeDir, kubeconfig: plane.kubeconfig, cgroupRoot });
    }),
  );
  const proxy = await startProxy(dir, plane.kubeconfig, NODES[0].name);
  const world = new World({
    plane,
    store,
    node: new Nodes(nodes, proxy),
    imagePrefix: 'localhost/lorikeet-',
  });
  await eventually('the nodes are Ready', { timeoutMs: 60_000 }, async () => {
    const wait = ['wait', 'node', '--all', '--for=condition=Ready', '--timeout=50s'];
    return await plane.kubectl(wait);
  });
  return world;
}
