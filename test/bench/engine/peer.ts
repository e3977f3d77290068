import type { TurnResult } from './trace.ts';

/** One of the engines that are compared. */
export interface Peer {
  name: string;
  /** Why there is nothing to measure, else null. */
  unavailable: string | null;
  /** Runs every case that it can once. */
  turn(): Promise<TurnResult>;
  close(): Promise<void>;
}
