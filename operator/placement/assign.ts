import { byPrecedence, type Claim, type Site } from './claim.ts';
import { Board, Seat } from './seat.ts';

/** Where one adapter is placed. */
export interface Share {
  claim: Claim;
  /** Fewer than this is a shortage. */
  least: number;
  /** Ids of pods. */
  pods: ReadonlySet<string>;
  /** By place in the list of sites: room left after this adapter's priority had its turn. */
  freeBytes: Readonly<Float64Array>;
}

/** Each pass moves the sum of all seats nearer to its best, so it ends by itself; this bounds a mistake in that. */
const PASSES_MAX = 1_000;

/**
 * Gives the pods of a pool out to its adapters: for each adapter, by id, where it should be. Pure: the same input is the
 * same answer, and an answer that is fed back as what pods hold is the answer again.
 *
 *   1. All: every pod, whatever room there is; what that takes is gone for the others.
 *   2. By priority, each as if lower ones were not there:
 *      a. who holds a pod keeps it, as far as the room goes; the older object first
 *      b. until nothing changes any more, each that
 *         lacks a pod                                 takes one with room: by zone, what it had, lower priorities left
 *                                                      alone, room for next revisions, free slots, rendezvous weight
 *         lacks one of its least, and none has room   takes one from those of its priority that have more than their least
 *         has two pods more in one zone than another  goes from the one to the other (spread)
 *         shares a pod's slots with too many          goes to a pod with a free slot, into no fuller zone
 *      c. who still lacks one of its least may be on a pod that does not report
 *
 * Each step of b makes better, in this order: least numbers met, pods given out, evenness over zones, slots.
 */
export function assign(claims: readonly Claim[], sites: readonly Site[]): Map<string, Share> {
  const board = new Board(sites);
  const shares = new Map<string, Share>();
  const seats = claims.toSorted(byPrecedence).map((claim) => new Seat(claim, board));
  const everywhere = seats.filter(({ claim }) => claim.mode === 'All');
  for (const seat of everywhere) for (const site of sites.keys()) seat.place(site);
  note(everywhere, board, shares);
  const chosen = seats.filter(({ claim }) => claim.mode !== 'All');
  for (const seat of chosen) noteHeld(seat, board, 1);
  for (const peers of Map.groupBy(chosen, ({ claim }) => claim.priority).values()) {
    for (const seat of peers) noteHeld(seat, board, -1);
    for (const seat of peers) keep(seat, board);
    improve(peers, board);
    for (const seat of peers) fillSilent(seat, board);
    note(peers, board, shares);
  }
  return shares;
}

function noteHeld({ held, claim }: Seat, { lowerBytes }: Board, by: 1 | -1): void {
  for (const site of held) lowerBytes[site] = (lowerBytes[site] as number) + by * claim.bytes;
}

function note(seats: readonly Seat[], board: Board, shares: Map<string, Share>): void {
  const freeBytes = board.freeBytes.slice();
  for (const { claim, wanted, placed } of seats) {
    const pods = new Set([...placed].map((site) => board.sites[site]?.id ?? ''));
    shares.set(claim.id, { claim, least: wanted.least, pods, freeBytes });
  }
}

function keep(seat: Seat, board: Board): void {
  while (seat.placed.size < seat.wanted.target) {
    const site = best(seat, board, { among: seat.held, allows: (item) => seat.fits(item) });
    if (site === null) return;
    seat.place(site);
  }
}

function improve(peers: readonly Seat[], board: Board): void {
  for (let pass = 0; pass < PASSES_MAX; pass += 1) {
    let changed = false;
    for (const seat of peers) {
      if (fill(seat, board)) changed = true;
      if (seat.lacks && takeExtra(seat, peers, board)) changed = true;
    }
    if (changed) continue;
    for (const seat of peers) if (evenOut(seat, board) || unload(seat, board)) changed = true;
    if (!changed) return;
  }
}

function fill(seat: Seat, board: Board): boolean {
  const before = seat.placed.size;
  while (seat.placed.size < seat.wanted.target) {
    const site = best(seat, board, { allows: (item) => seat.fits(item) });
    if (site === null) break;
    seat.place(site);
  }
  return seat.placed.size > before;
}

interface Taking {
  site: number;
  losers: Seat[];
}

/** A pod where peers have more than they need; of several, where the fewest must go. */
function takeExtra(seat: Seat, peers: readonly Seat[], board: Board): boolean {
  const rich = peers.filter((peer) => peer.hasExtra);
  const takings = [...board.sites.keys()].flatMap((site): Taking[] => {
    if (rich.length === 0 || seat.placed.has(site) || !board.reports(site)) return [];
    const losers = losersAt(site, seat, { rich, board });
    return losers === null ? [] : [{ site, losers }];
  });
  const [cheapest] = takings.sort(
    (a, b) => a.losers.length - b.losers.length || (seat.outweighs(a.site, b.site) ? -1 : 1),
  );
  if (cheapest === undefined) return false;
  for (const loser of cheapest.losers) loser.leave(cheapest.site);
  seat.place(cheapest.site);
  return true;
}

/** Null: not even then would there be room. */
function losersAt(
  site: number,
  { claim }: Seat,
  { rich, board }: { rich: readonly Seat[]; board: Board },
): Seat[] | null {
  let freeBytes = board.freeBytes[site] as number;
  const losers: Seat[] = [];
  const mayLose = rich
    .filter((peer) => peer.placed.has(site))
    .sort((a, b) => b.claim.bytes - a.claim.bytes || byPrecedence(b.claim, a.claim));
  for (const peer of mayLose) {
    if (freeBytes >= claim.bytes) break;
    losers.push(peer);
    freeBytes += peer.claim.bytes;
  }
  return freeBytes >= claim.bytes ? losers : null;
}

/** From the fullest zone to one that has at least two pods less. */
function evenOut(seat: Seat, board: Board): boolean {
  if (!seat.isUneven) return false;
  const from = inFullestZone(seat);
  if (from === null) return false;
  const isBetter = (item: number) => seat.inZoneOf(item) + 2 <= seat.inZoneOf(from);
  return move(seat, from, best(seat, board, { allows: (item) => isBetter(item) && seat.fits(item) }));
}

/** From a pod with more adapters than slots to one that has a slot for it: from the fullest from which it can. */
function unload(seat: Seat, board: Board): boolean {
  const free = [...board.sites.keys()].filter((site) => board.excess(site) < 0);
  if (free.length === 0) return false;
  const crowded = [...seat.placed]
    .filter((site) => board.excess(site) > 0)
    .sort((a, b) => board.excess(b) - board.excess(a) || (seat.outweighs(a, b) ? 1 : -1));
  return crowded.some((from) => {
    const isBetter = (item: number) =>
      !seat.claim.spread ||
      board.zones[item] === board.zones[from] ||
      seat.inZoneOf(item) < seat.inZoneOf(from);
    const to = best(seat, board, { among: free, allows: (item) => isBetter(item) && seat.fits(item) });
    return move(seat, from, to);
  });
}

function move(seat: Seat, from: number, to: number | null): boolean {
  if (to === null) return false;
  seat.leave(from);
  seat.place(to);
  return true;
}

function fillSilent(seat: Seat, board: Board): void {
  while (seat.lacks) {
    const site = best(seat, board, { allows: (item) => !board.reports(item) });
    if (site === null) return;
    seat.place(site);
  }
}

/** Where it should be before all others that are allowed and where it is not yet; null: there is none. */
function best(
  seat: Seat,
  board: Board,
  { among = board.sites.keys(), allows }: { among?: Iterable<number>; allows: (site: number) => boolean },
): number | null {
  let found: number | null = null;
  for (const site of among) {
    if (seat.placed.has(site) || !allows(site)) continue;
    if (found === null || prefers(seat, board, [site, found])) found = site;
  }
  return found;
}

function prefers(seat: Seat, board: Board, [a, b]: [number, number]): boolean {
  const zones = seat.inZoneOf(a) - seat.inZoneOf(b);
  if (zones !== 0) return zones < 0;
  if (seat.held.has(a) !== seat.held.has(b)) return seat.held.has(a);
  if (seat.fitsBesideLower(a) !== seat.fitsBesideLower(b)) return seat.fitsBesideLower(a);
  if (seat.leavesHeadroom(a) !== seat.leavesHeadroom(b)) return seat.leavesHeadroom(a);
  const hasSlot = board.excess(a) < 0;
  if (hasSlot !== board.excess(b) < 0) return hasSlot;
  return seat.outweighs(a, b);
}

/** The placed site in whose zone most are, and of equals the one that it likes least. */
function inFullestZone(seat: Seat): number | null {
  let found: number | null = null;
  for (const site of seat.placed) {
    const by = found === null ? 1 : seat.inZoneOf(site) - seat.inZoneOf(found);
    if (found === null || by > 0 || (by === 0 && seat.outweighs(found, site))) found = site;
  }
  return found;
}
