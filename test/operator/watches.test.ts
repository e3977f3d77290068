import { beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../operator/kube/log.ts';
import type { Rest } from '../../operator/kube/rest.ts';
import { ADAPTER_INDEXES } from '../../operator/placement/lookup.ts';
import type { Fleet } from '../../operator/pods/fleet.ts';
import type { FleetChange } from '../../operator/pods/pod.ts';
import { openQueues, type Queues, Watches } from '../../operator/watches.ts';
import { loraAdapter, POOL_KEY } from './adapter/objects.ts';

let queues: Queues;
let tell: (change: FleetChange) => void;
let added: string[];

beforeEach(() => {
  queues = openQueues(silentLog, () => {});
  added = [];
  queues.adapters.add = (key) => void added.push(key);
  queues.pools.addAfter = () => {};
  const watches = new Watches({ rest: {} as Rest, log: silentLog, namespace: undefined, queues });
  const adapters = [
    loraAdapter('waits'),
    loraAdapter('served'),
    loraAdapter('elsewhere', { spec: { poolRef: { name: 'other' } } }),
  ];
  watches.adapters.by = (index, value) =>
    adapters.filter((adapter) => ADAPTER_INDEXES[index](adapter) === value);
  const fleet = {
    onChange: (listener: typeof tell) => {
      tell = listener;
    },
  };
  watches.follow(fleet as unknown as Fleet, (key) => key !== 'lora/served');
});

describe('what a pod reports', () => {
  it('is looked at for the adapters that it is about', () => {
    tell({ poolKey: POOL_KEY, adapters: ['served'] });
    expect(added).toEqual(['lora/served']);
  });

  it('wakes who waits for room in its pool when it has some', () => {
    tell({ poolKey: POOL_KEY, adapters: [], freed: true });
    expect(added).toEqual(['lora/waits']);
  });

  it('wakes nobody who waits for room when it has none', () => {
    tell({ poolKey: POOL_KEY, adapters: [] });
    expect(added).toEqual([]);
  });
});
