import type { Check } from './check.ts';
import { ACTIVATE } from './checks/activate.ts';
import { FENCES } from './checks/fences.ts';
import { PUT } from './checks/put.ts';
import { REFUSALS } from './checks/refusals.ts';
import { REQUESTS } from './checks/requests.ts';
import { SERVING } from './checks/serving.ts';
import { STAGE } from './checks/stage.ts';
import { STATE } from './checks/state.ts';
import { WATCH } from './checks/watch.ts';

/** In the order in which they run. */
export const CHECKS: Check[] = [
  ...STATE,
  ...STAGE,
  ...ACTIVATE,
  ...PUT,
  ...FENCES,
  ...REQUESTS,
  ...REFUSALS,
  ...WATCH,
  ...SERVING,
];
