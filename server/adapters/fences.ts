import type { Fence } from '../contract/adapter-api.ts';
import { expected, type LorikeetError } from '../contract/errors.ts';
import type { Adapter } from './adapters.ts';

export function isOlder(fence: Fence, than: Fence): boolean {
  return fence.term < than.term || (fence.term === than.term && fence.sequence < than.sequence);
}

/** Refuses what an operator asked for before something that it asked for later. */
export function requireNotOlder(adapter: Adapter, fence: Fence | null): void {
  if (fence === null || adapter.highestFence === null || !isOlder(fence, adapter.highestFence)) return;
  throw staleFence(adapter.highestFence, fence);
}

export function staleFence(least: Fence, actual: Fence): LorikeetError {
  const text = ({ term, sequence }: Fence) => `${term}.${sequence}`;
  const want = { words: `a fence not below ${text(least)}`, value: text(least) };
  return expected('stale_fence', 'x-lora-fence', want, text(actual));
}

/** The same for another revision, where an equal fence says that two operators act as one. */
export function requireLater(adapter: Adapter, fence: Fence | null): void {
  requireNotOlder(adapter, fence);
  if (fence === null || adapter.fence === null || isOlder(adapter.fence, fence)) return;
  throw staleFence({ term: adapter.fence.term, sequence: adapter.fence.sequence + 1 }, fence);
}
