import type { PodChanges, PodState } from '../../server/contract/adapter-api.ts';

/** The state that changes lead to. What has not changed is the same object in both. */
export function applyChanges(state: PodState, { adapters, removed, ...totals }: PodChanges): PodState {
  const changed = new Map(adapters.map((adapter) => [adapter.name, adapter]));
  const gone = new Set(removed);
  const kept = state.adapters
    .filter(({ name }) => !gone.has(name))
    .map((adapter) => {
      const next = changed.get(adapter.name) ?? adapter;
      changed.delete(adapter.name);
      return next;
    });
  return { ...state, ...totals, adapters: [...kept, ...changed.values()] };
}
