// What is asked of the registry.

import type { Acceptance, Fence, InFlight } from '../contract/adapter-api.ts';
import type { ReceivedAdapter } from './receive.ts';

/** What a push says of its content. */
export interface Asked {
  step: number | null;
  /** Take a revision whose every B is zero. */
  allowZeroEffect: boolean;
}

export interface StageRequest extends Asked {
  name: string;
  received: ReceivedAdapter;
}

export interface ActivateCall {
  name: string;
  digest: string;
  /** Compare-and-swap; absent: no check. */
  expectCurrent?: string | null | undefined;
  /** Earlier current revisions to keep. */
  keep?: number | undefined;
  fence?: Fence | null;
  inFlight?: InFlight | undefined;
  accepted?: Acceptance | undefined;
}

export interface RollbackCall extends Pick<ActivateCall, 'name' | 'expectCurrent' | 'fence' | 'inFlight'> {
  to?: string | number | undefined;
}
