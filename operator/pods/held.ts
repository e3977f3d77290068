import type { AdapterState, PodState } from '../../server/contract/adapter-api.ts';

/**
 * Where in a report each name is. A report is looked into for each of thousands of adapters, and made anew with each
 * change; what is kept here is found out from the report alone, and goes with it.
 */
const positions = new WeakMap<PodState, Map<string, number>>();

export function heldIn(state: PodState, name: string): AdapterState | undefined {
  const at = positionsIn(state).get(name);
  return at === undefined ? undefined : state.adapters[at];
}

function positionsIn(state: PodState): Map<string, number> {
  const known = positions.get(state);
  if (known?.size === state.adapters.length) return known;
  const found = new Map(state.adapters.map(({ name }, at) => [name, at]));
  positions.set(state, found);
  return found;
}

/** `next` is `state` with some adapters in new objects, and new ones at the end: what is known of the one goes over to the other. */
export function carryPositions(state: PodState, next: PodState): void {
  const known = positions.get(state);
  if (known === undefined) return;
  positions.delete(state);
  for (let at = known.size; at < next.adapters.length; at += 1) known.set(next.adapters[at]?.name ?? '', at);
  positions.set(next, known);
}
