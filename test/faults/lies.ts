import type { PodState } from '../../server/contract/adapter-api.ts';
import { digestOf, goodAdapter } from '../support/adapter-files.ts';
import { adapterState, held } from '../support/pod/state.ts';
import { NAME } from './scenarios.ts';

/** What a pod says instead of what it holds. */
export interface Lie {
  told(state: PodState): PodState;
  /** Null: as long as it is none. */
  forMs: number | null;
}

const DIGEST = digestOf(goodAdapter(1));
/** For lies that nothing but their end can put right. */
const A_WHILE_MS = 1_500;

export const LIES: Record<string, Lie> = {
  'a pod says that it holds what it does not': { told: (state) => claiming(state, 'staged'), forMs: null },
  'a pod says for a while that it serves what it does not': {
    told: (state) => claiming(state, 'current'),
    forMs: A_WHILE_MS,
  },
  'a pod says for a while that it holds nothing': {
    told: (state) => (state.adapters.length === 0 ? state : { ...state, adapters: [] }),
    forMs: A_WHILE_MS,
  },
};

function claiming(state: PodState, how: 'staged' | 'current'): PodState {
  if (state.adapters.some(({ name }) => name === NAME)) return state;
  const claimed = adapterState(NAME, how === 'current' ? DIGEST : null, [held(DIGEST, how)]);
  return { ...state, adapters: [...state.adapters, claimed] };
}
