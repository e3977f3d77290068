import type { Fence } from '../contract/adapter-api.ts';
import { LorikeetError } from '../contract/errors.ts';
import type { Adapter } from './adapters.ts';

export function isOlder(fence: Fence, than: Fence): boolean {
  return fence.term < than.term || (fence.term === than.term && fence.sequence < than.sequence);
}

/** Refuses what an operator asked for before something that it asked for later. */
export function requireNotOlder(adapter: Adapter, fence: Fence | null): void {
  if (fence === null || adapter.highestFence === null || !isOlder(fence, adapter.highestFence)) return;
  throw staleFence(adapter.highestFence, fence);
}

export function staleFence(expected: Fence, actual: Fence): LorikeetError {
  const text = ({ term, sequence }: Fence) => `${term}.${sequence}`;
  return new LorikeetError(
    'stale_fence',
    `Expected a fence not below ${text(expected)} but received ${text(actual)}`,
    {
      field: 'x-lora-fence',
      expected: text(expected),
      actual: text(actual),
    },
  );
}

/** The same for another revision, where an equal fence says that two operators act as one. */
export function requireLater(adapter: Adapter, fence: Fence | null): void {
  requireNotOlder(adapter, fence);
  if (fence === null || adapter.fence === null || isOlder(adapter.fence, fence)) return;
  throw staleFence({ term: adapter.fence.term, sequence: adapter.fence.sequence + 1 }, fence);
}
