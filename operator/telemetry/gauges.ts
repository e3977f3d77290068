import { Gauge, type Registry } from 'prom-client';
import { type LoraAdapter, servedNameOf } from '../api/lora-adapter.ts';
import type { ServerPool } from '../api/server-pool.ts';
import type { Clock } from '../kube/clock.ts';
import { keyOf } from '../kube/resource.ts';
import type { Pod } from '../pods/pod.ts';

export interface GaugeSources {
  adapters: { list(): LoraAdapter[] };
  pools: { list(): ServerPool[] };
  leader: { leading: object | null };
  queues: Record<'adapters' | 'pools', { depth: number }>;
  fleet: { podsOf(poolKey: string): Pick<Pod, 'name' | 'reachable'>[] };
  spool: { usedBytes: number; pinnedBytes: number; maxBytes: number };
  clock: Clock;
}

/** Gauges that are read off the caches when somebody scrapes: what is not there any more has no series. */
export function registerGauges(registry: Registry, sources: GaugeSources): void {
  registerAdapterGauges(registry, sources);
  registerPoolGauges(registry, sources);
  const registers = [registry];
  gauge(registers, 'leader', 'Whether this process leads', [], (set) =>
    set({}, sources.leader.leading === null ? 0 : 1),
  );
  gauge(registers, 'spool_bytes', 'Bytes of revisions in the spool', [], (set) =>
    set({}, sources.spool.usedBytes),
  );
  gauge(registers, 'spool_bytes_max', 'Bytes that the spool may take', [], (set) =>
    set({}, sources.spool.maxBytes),
  );
  gauge(registers, 'spool_pinned_bytes', 'Bytes of the spool that nothing newer may push out', [], (set) =>
    set({}, sources.spool.pinnedBytes),
  );
  gauge(registers, 'queue_depth', 'Objects that wait to be looked at', ['queue'], (set) => {
    for (const [queue, { depth }] of Object.entries(sources.queues)) set({ queue }, depth);
  });
}

function registerAdapterGauges(registry: Registry, { adapters, clock }: GaugeSources): void {
  const registers = [registry];
  const each = (visit: (adapter: LoraAdapter, labels: { ns: string; adapter: string }) => void) => {
    for (const item of adapters.list()) {
      visit(item, { ns: item.metadata.namespace ?? '', adapter: item.metadata.name });
    }
  };
  const infoLabels = ['ns', 'adapter', 'served_name', 'pool', 'pool_ns', 'revision'];
  gauge(registers, 'adapter_info', 'Constant 1 per adapter; revision is the current one', infoLabels, (set) =>
    each((item, labels) => {
      const revision = item.status?.currentRevision?.digest ?? '';
      const { name: pool, namespace: pool_ns = labels.ns } = item.spec.poolRef;
      set({ ...labels, served_name: servedNameOf(item), pool, pool_ns, revision }, 1);
    }),
  );
  gauge(registers, 'adapter_replicas', 'Pods of an adapter by state', ['ns', 'adapter', 'state'], (set) =>
    each((item, labels) => {
      const { desired = 0, staged = 0, ready = 0 } = item.status?.pods ?? {};
      for (const [state, pods] of Object.entries({ desired, staged, ready })) set({ ...labels, state }, pods);
    }),
  );
  gauge(
    registers,
    'adapter_ready',
    'Whether all desired pods serve the desired revision',
    ['ns', 'adapter'],
    (set) =>
      each((item, labels) => {
        const ready = item.status?.conditions?.find(({ type }) => type === 'Ready');
        set(labels, ready?.status === 'True' ? 1 : 0);
      }),
  );
  const step = "The trainer's step of the current revision, where it has one";
  gauge(registers, 'adapter_step', step, ['ns', 'adapter'], (set) =>
    each((item, labels) => {
      const at = item.status?.currentRevision?.step ?? null;
      if (at !== null) set(labels, at);
    }),
  );
  gauge(
    registers,
    'adapter_unready',
    'Constant 1 while an adapter is not Ready; reason is why, in the words of its condition',
    ['ns', 'adapter', 'reason'],
    (set) =>
      each((item, labels) => {
        const ready = item.status?.conditions?.find(({ type }) => type === 'Ready');
        if (ready?.status !== 'True') set({ ...labels, reason: ready?.reason ?? 'Pending' }, 1);
      }),
  );
  gauge(
    registers,
    'revision_age_seconds',
    'Since the operator had the current revision',
    ['ns', 'adapter'],
    (set) =>
      each((item, labels) => {
        const at = item.status?.currentRevision?.at;
        if (at) set(labels, (clock.date().getTime() - Date.parse(at)) / 1000);
      }),
  );
}

function registerPoolGauges(registry: Registry, { pools, fleet }: GaugeSources): void {
  const registers = [registry];
  gauge(registers, 'pool_slots', 'Slots of a pool by state', ['ns', 'pool', 'state'], (set) => {
    for (const { metadata, status } of pools.list()) {
      const labels = { ns: metadata.namespace ?? '', pool: metadata.name };
      const { total = 0, used = 0 } = status?.slots ?? {};
      set({ ...labels, state: 'used' }, used);
      set({ ...labels, state: 'free' }, Math.max(0, total - used));
    }
  });
  const pods = 'Pods of a pool by whether they answer and have its base model';
  gauge(registers, 'pool_pods', pods, ['ns', 'pool', 'state'], (set) => {
    for (const { metadata, status } of pools.list()) {
      const labels = { ns: metadata.namespace ?? '', pool: metadata.name };
      const { pods: all = 0, readyPods = 0 } = status ?? {};
      set({ ...labels, state: 'ready' }, readyPods);
      set({ ...labels, state: 'unready' }, Math.max(0, all - readyPods));
    }
  });
  gauge(registers, 'drift_adapters', 'Adapters in pods that no LoraAdapter owns', ['ns', 'pool'], (set) => {
    for (const { metadata, status } of pools.list()) {
      set({ ns: metadata.namespace ?? '', pool: metadata.name }, status?.unmanaged?.length ?? 0);
    }
  });
  const conditionLabels = ['ns', 'pool', 'condition', 'reason'];
  gauge(registers, 'pool_condition', 'Whether a condition of a pool is True', conditionLabels, (set) => {
    for (const { metadata, status } of pools.list()) {
      const labels = { ns: metadata.namespace ?? '', pool: metadata.name };
      for (const { type, status: holds, reason } of status?.conditions ?? []) {
        if (holds !== 'Unknown') set({ ...labels, condition: type, reason }, holds === 'True' ? 1 : 0);
      }
    }
  });
  gauge(
    registers,
    'pod_reachable',
    'Whether this process hears from a pod of a pool',
    ['ns', 'pool', 'pod'],
    (set) => {
      for (const pool of pools.list()) {
        const labels = { ns: pool.metadata.namespace ?? '', pool: pool.metadata.name };
        for (const { name, reachable } of fleet.podsOf(keyOf(pool)))
          set({ ...labels, pod: name }, reachable ? 1 : 0);
      }
    },
  );
}

type Set = (labels: Record<string, string>, value: number) => void;

function gauge(
  registers: Registry[],
  name: string,
  help: string,
  labelNames: string[],
  read: (set: Set) => void,
): void {
  new Gauge({
    name: `lorikeet_operator_${name}`,
    help,
    labelNames,
    registers,
    collect() {
      this.reset();
      read((labels, value) => this.set(labels, value));
    },
  });
}
