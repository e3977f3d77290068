import { bytesText } from '../pods/words.ts';
import type { Share } from './assign.ts';
import type { Site } from './claim.ts';

/** What would fit where, and why not: of one pod. */
export interface Fit {
  pod: string;
  zone: string | null;
  /** placed: it should be there. spare: it would fit, and need not be there. full: it would not fit. silent: nobody knows. */
  state: 'placed' | 'spare' | 'full' | 'silent';
  /** Whether the pod reports that it has it. */
  holds: boolean;
  /** Room that adapters of its own and higher priority leave; null: the pod does not report. */
  freeBytes: number | null;
  neededBytes: number;
  why: string;
}

export function fitsOf(
  { claim, pods, freeBytes }: Share,
  { sites, held }: { sites: readonly Site[]; held: ReadonlySet<string> },
): Fit[] {
  return sites.map((site, index) => {
    const free = site.roomBytes === null ? null : (freeBytes[index] ?? 0);
    const isPlaced = pods.has(site.id);
    const state = isPlaced ? 'placed' : free === null ? 'silent' : free < claim.bytes ? 'full' : 'spare';
    return {
      ...{ pod: site.name, zone: site.zone, state, holds: held.has(site.id), freeBytes: free },
      neededBytes: claim.bytes,
      why: whyText(state, { freeBytes: free ?? 0, neededBytes: claim.bytes }),
    };
  });
}

function whyText(
  state: Fit['state'],
  { freeBytes, neededBytes }: Pick<Fit, 'neededBytes'> & { freeBytes: number },
): string {
  switch (state) {
    case 'placed':
      return 'It should be here.';
    case 'spare':
      return 'It would fit here, and has enough pods without this one.';
    case 'full':
      return `${bytesText(Math.max(0, freeBytes))} of host memory are left by adapters that come first; it needs ${bytesText(neededBytes)}.`;
    case 'silent':
      return 'The pod does not report what room it has.';
  }
}

/** Null: it has all the pods that it asks for. Else how many of them, and what the others lack. */
export function shortageText(share: Share, sites: readonly Site[]): string | null {
  const { pods, least, claim } = share;
  if (pods.size >= least) return null;
  const have = `Placed on ${pods.size} of ${least} pods`;
  const full = fitsOf(share, { sites, held: claim.held }).filter(({ state }) => state === 'full');
  if (full.length === 0) return `${have}: the pool has only ${sites.length}.`;
  const rooms = full
    .slice(0, 3)
    .map(({ pod, freeBytes }) => `${pod} has ${bytesText(Math.max(0, freeBytes ?? 0))} free`);
  const more = full.length > 3 ? ` and ${full.length - 3} more` : '';
  return `${have}: it needs ${bytesText(claim.bytes)} of host memory; ${rooms.join(', ')}${more}.`;
}
