import type { PodChanges, PodState } from '../../server/contract/adapter-api.ts';
import { carryPositions, heldIn } from './held.ts';

/** The state that changes lead to. What has not changed is the same object in both, in the same order. */
export function applyChanges(state: PodState, { adapters, removed, ...totals }: PodChanges): PodState {
  const changed = new Map(adapters.map((adapter) => [adapter.name, adapter]));
  const gone = new Set(removed.filter((name) => !changed.has(name)));
  const kept = gone.size === 0 ? state.adapters : state.adapters.filter(({ name }) => !gone.has(name));
  const added = [...changed.values()].filter(({ name }) => heldIn(state, name) === undefined);
  const next = {
    ...state,
    ...totals,
    adapters: [...kept.map((adapter) => changed.get(adapter.name) ?? adapter), ...added],
  };
  if (gone.size === 0) carryPositions(state, next);
  return next;
}
