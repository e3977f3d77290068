import type { Check } from './check.ts';
import { STAGE } from './checks/stage.ts';
import { STATE } from './checks/state.ts';

/** In the order in which they run. */
export const CHECKS: Check[] = [...STATE, ...STAGE];
