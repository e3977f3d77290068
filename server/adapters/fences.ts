import { type Fence, HEADER } from '../contract/adapter-api.ts';
import { expected, type LorikeetError } from '../contract/errors.ts';
import { fenceText, isOlderFence } from '../contract/fence.ts';
import type { Adapter } from './adapters.ts';

/** Refuses what an operator asked for before something that it asked for later. */
export function requireNotOlder(adapter: Adapter, fence: Fence | null): void {
  if (fence === null || adapter.highestFence === null || !isOlderFence(fence, adapter.highestFence)) return;
  throw staleFence(adapter.highestFence, fence);
}

export function staleFence(least: Fence, actual: Fence): LorikeetError {
  const want = { words: `a fence not below ${fenceText(least)}`, value: fenceText(least) };
  return expected('stale_fence', HEADER.fence, want, fenceText(actual));
}

/** The same for another revision, where an equal fence says that two operators act as one. */
export function requireLater(adapter: Adapter, fence: Fence | null): void {
  requireNotOlder(adapter, fence);
  if (fence === null || adapter.fence === null || isOlderFence(adapter.fence, fence)) return;
  throw staleFence({ term: adapter.fence.term, sequence: adapter.fence.sequence + 1 }, fence);
}
