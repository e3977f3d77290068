import type { Fence } from './adapter-api.ts';

/** The later term wins, whatever the sequences say; equal fences are of one change. */
export function isOlderFence(fence: Fence, than: Fence): boolean {
  return fence.term < than.term || (fence.term === than.term && fence.sequence < than.sequence);
}

/** As it stands in HEADER.fence and in messages. */
export function fenceText({ term, sequence }: Fence): string {
  return `${term}.${sequence}`;
}
