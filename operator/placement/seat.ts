import type { Claim, Site, Wanted } from './claim.ts';
import { hashOf, weightOf } from './hash.ts';

/** The pods of a pool while they are given out. A site is named by its place in `sites`. */
export class Board {
  readonly sites: readonly Site[];
  /** What is left of each site's room; infinite where it does not report. */
  readonly freeBytes: Float64Array;
  /** How many adapters are placed on each site. */
  readonly load: Int32Array;
  /** What adapters of lower priority hold there now: room that is taken from them only where there is no other. */
  readonly lowerBytes: Float64Array;
  readonly hashes: readonly number[];

  constructor(sites: readonly Site[]) {
    this.sites = sites;
    this.freeBytes = Float64Array.from(sites, ({ roomBytes }) => roomBytes ?? Number.POSITIVE_INFINITY);
    this.load = new Int32Array(sites.length);
    this.lowerBytes = new Float64Array(sites.length);
    this.hashes = sites.map(({ id }) => hashOf(id));
  }

  reports(site: number): boolean {
    return this.sites[site]?.roomBytes !== null;
  }

  free(site: number): number {
    return this.freeBytes[site] as number;
  }

  loadOf(site: number): number {
    return this.load[site] as number;
  }

  slotsOf(site: number): number {
    return this.sites[site]?.slots ?? 0;
  }

  hasFreeSlot(site: number): boolean {
    return this.loadOf(site) < this.slotsOf(site);
  }
}

/** One adapter while pods are given out to it. */
export class Seat {
  readonly claim: Claim;
  readonly wanted: Wanted;
  readonly placed = new Set<number>();
  /** Of rendezvous hashing, by site. */
  readonly #weights: Uint32Array;
  readonly #board: Board;
  readonly #inZone = new Map<string | null, number>();

  constructor(claim: Claim, wanted: Wanted, board: Board) {
    this.claim = claim;
    this.wanted = wanted;
    this.#board = board;
    const hash = hashOf(claim.id);
    this.#weights = Uint32Array.from(board.hashes, (pod) => weightOf(hash, pod));
  }

  get lacks(): boolean {
    return this.placed.size < this.wanted.least;
  }

  /** It may give a pod up and still has what it needs. */
  get hasExtra(): boolean {
    return this.placed.size > this.wanted.least;
  }

  holds(site: number): boolean {
    return this.claim.held.has(this.#board.sites[site]?.id ?? '');
  }

  fits(site: number): boolean {
    return this.#board.free(site) >= this.claim.bytes;
  }

  fitsBesideLower(site: number): boolean {
    return this.#board.free(site) - (this.#board.lowerBytes[site] as number) >= this.claim.bytes;
  }

  /** How many of its pods are in the zone of a site; 0 where it need not be spread. */
  inZoneOf(site: number): number {
    if (!this.claim.spread) return 0;
    return this.#inZone.get(this.#board.sites[site]?.zone ?? null) ?? 0;
  }

  /** It would rather be on `a`, where nothing else tells the two apart. */
  outweighs(a: number, b: number): boolean {
    const by = (this.#weights[a] as number) - (this.#weights[b] as number);
    const [idA = '', idB = ''] = [a, b].map((site) => this.#board.sites[site]?.id);
    return by === 0 ? idA < idB : by > 0;
  }

  place(site: number): void {
    this.placed.add(site);
    this.#count(site, 1);
  }

  leave(site: number): void {
    this.placed.delete(site);
    this.#count(site, -1);
  }

  #count(site: number, by: 1 | -1): void {
    const board = this.#board;
    board.freeBytes[site] = board.free(site) - by * this.claim.bytes;
    board.load[site] = board.loadOf(site) + by;
    const zone = board.sites[site]?.zone ?? null;
    this.#inZone.set(zone, (this.#inZone.get(zone) ?? 0) + by);
  }
}
