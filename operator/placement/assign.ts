import { byPrecedence, type Claim, type Site, wantedBy } from './claim.ts';
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
 *         lacks a pod                                 takes one with room: its zone, then free slots, then rendezvous weight
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
  const traffic = claims.reduce((sum, claim) => sum + (claim.mode === 'Auto' ? claim.traffic : 0), 0);
  const seats = claims.toSorted(byPrecedence).map((claim) => {
    const holders = sites.filter(({ id, roomBytes }) => roomBytes !== null && claim.held.has(id)).length;
    return new Seat(claim, wantedBy(claim, { pods: sites.length, holders, traffic }), board);
  });
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

function noteHeld(seat: Seat, board: Board, by: 1 | -1): void {
  for (const site of board.sites.keys()) {
    if (seat.holds(site)) board.lowerBytes[site] = (board.lowerBytes[site] as number) + by * seat.claim.bytes;
  }
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
    const site = best(seat, board, (item) => board.reports(item) && seat.holds(item) && seat.fits(item));
    if (site === null) return;
    seat.place(site);
  }
}

function improve(peers: readonly Seat[], board: Board): void {
  for (let pass = 0; pass < PASSES_MAX; pass += 1) {
    let changed = false;
    for (const seat of peers) {
      if (fill(seat, board)) changed = true;
      if (takeExtra(seat, peers, board)) changed = true;
    }
    if (changed) continue;
    for (const seat of peers) if (evenOut(seat, board) || unload(seat, board)) changed = true;
    if (!changed) return;
  }
}

function fill(seat: Seat, board: Board): boolean {
  const before = seat.placed.size;
  while (seat.placed.size < seat.wanted.target) {
    const site = best(seat, board, (item) => board.reports(item) && seat.fits(item));
    if (site === null) break;
    seat.place(site);
  }
  return seat.placed.size > before;
}

/** A pod where peers have more than they need; of several, where the fewest must go. */
function takeExtra(seat: Seat, peers: readonly Seat[], board: Board): boolean {
  if (!seat.lacks) return false;
  let cheapest: { site: number; losers: Seat[] } | null = null;
  for (const site of board.sites.keys()) {
    if (seat.placed.has(site) || !board.reports(site)) continue;
    const losers = losersAt(site, seat, { peers, board });
    if (losers === null || (cheapest !== null && !isCheaper(seat, { site, losers }, cheapest))) continue;
    cheapest = { site, losers };
  }
  if (cheapest === null) return false;
  for (const loser of cheapest.losers) loser.leave(cheapest.site);
  seat.place(cheapest.site);
  return true;
}

function isCheaper(
  seat: Seat,
  a: { site: number; losers: Seat[] },
  b: { site: number; losers: Seat[] },
): boolean {
  if (a.losers.length !== b.losers.length) return a.losers.length < b.losers.length;
  return seat.outweighs(a.site, b.site);
}

/** Null: not even then would there be room. */
function losersAt(
  site: number,
  seat: Seat,
  { peers, board }: { peers: readonly Seat[]; board: Board },
): Seat[] | null {
  let freeBytes = board.free(site);
  const losers: Seat[] = [];
  const mayLose = peers
    .filter((peer) => peer !== seat && peer.hasExtra && peer.placed.has(site))
    .sort((a, b) => b.claim.bytes - a.claim.bytes || byPrecedence(b.claim, a.claim));
  for (const peer of mayLose) {
    if (freeBytes >= seat.claim.bytes) break;
    losers.push(peer);
    freeBytes += peer.claim.bytes;
  }
  return freeBytes >= seat.claim.bytes ? losers : null;
}

/** From the fullest zone to one that has at least two pods less. */
function evenOut(seat: Seat, board: Board): boolean {
  if (!seat.claim.spread || seat.placed.size < 2) return false;
  const from = worst(seat, (a, b) => seat.inZoneOf(b) - seat.inZoneOf(a));
  if (from === null) return false;
  const to = best(
    seat,
    board,
    (item) => board.reports(item) && seat.fits(item) && seat.inZoneOf(item) + 2 <= seat.inZoneOf(from),
  );
  return move(seat, from, to);
}

/** From a pod with more adapters than slots to one that has a slot for it. */
function unload(seat: Seat, board: Board): boolean {
  const from = worst(seat, (a, b) => excess(board, b) - excess(board, a));
  if (from === null || excess(board, from) <= 0) return false;
  const keepsZones = (item: number) =>
    board.sites[item]?.zone === board.sites[from]?.zone || seat.inZoneOf(item) < seat.inZoneOf(from);
  const isBetter = (item: number) => !seat.claim.spread || keepsZones(item);
  const to = best(
    seat,
    board,
    (item) => board.reports(item) && seat.fits(item) && board.hasFreeSlot(item) && isBetter(item),
  );
  return move(seat, from, to);
}

function excess(board: Board, site: number): number {
  return board.loadOf(site) - board.slotsOf(site);
}

function move(seat: Seat, from: number, to: number | null): boolean {
  if (to === null) return false;
  seat.leave(from);
  seat.place(to);
  return true;
}

function fillSilent(seat: Seat, board: Board): void {
  while (seat.lacks) {
    const site = best(seat, board, (item) => !board.reports(item));
    if (site === null) return;
    seat.place(site);
  }
}

/** Where it should be before all others that are allowed and where it is not yet; null: there is none. */
function best(seat: Seat, board: Board, allows: (site: number) => boolean): number | null {
  let found: number | null = null;
  for (const site of board.sites.keys()) {
    if (seat.placed.has(site) || !allows(site)) continue;
    if (found === null || prefers(seat, board, [site, found])) found = site;
  }
  return found;
}

function prefers(seat: Seat, board: Board, [a, b]: [number, number]): boolean {
  const zones = seat.inZoneOf(a) - seat.inZoneOf(b);
  if (zones !== 0) return zones < 0;
  const bonus = Number(seat.holds(a)) - Number(seat.holds(b));
  if (bonus !== 0) return bonus > 0;
  const mildness = Number(seat.fitsBesideLower(a)) - Number(seat.fitsBesideLower(b));
  if (mildness !== 0) return mildness > 0;
  const slots = Number(board.hasFreeSlot(a)) - Number(board.hasFreeSlot(b));
  if (slots !== 0) return slots > 0;
  return seat.outweighs(a, b);
}

/** The placed site that comes first in `order`, and of equals the one that it likes least. */
function worst(seat: Seat, order: (a: number, b: number) => number): number | null {
  let found: number | null = null;
  for (const site of seat.placed) {
    if (found === null) found = site;
    const by = order(site, found);
    if (by < 0 || (by === 0 && seat.outweighs(found, site))) found = site;
  }
  return found;
}
