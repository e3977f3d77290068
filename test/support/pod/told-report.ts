import type { PodReport } from '../../../server/adapters/pod-report.ts';
import type { Reported } from '../../../server/adapters/state-log.ts';
import type { AdapterState, PodState } from '../../../server/contract/adapter-api.ts';

/** What a pod reports where something else stands in for its state: any name may be told otherwise at any look. */
export function toldReport(state: () => PodState): Pick<PodReport, keyof Reported> {
  const listeners: ((name: string) => void)[] = [];
  let told = new Map<string, AdapterState>();
  return {
    look: () => {
      const { adapters, ...totals } = state();
      const before = told;
      told = new Map(adapters.map((adapter) => [adapter.name, adapter]));
      for (const name of new Set([...before.keys(), ...told.keys()]))
        for (const listener of listeners) listener(name);
      return totals;
    },
    names: () => [...told.keys()],
    adapter: (name) => told.get(name) ?? null,
    onTouched: (listener) => void listeners.push(listener),
  };
}
