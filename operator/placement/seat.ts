import { type Claim, type Site, type Wanted, wantedBy } from './claim.ts';
import { hashOf, scoreOf, weightOf } from './hash.ts';

/** The pods of a pool while they are given out. A site is named by its place in `sites`. */
export class Board {
  readonly sites: readonly Site[];
  /** What is left of each site's room; infinite where it does not report. */
  readonly freeBytes: Float64Array;
  /** How many adapters are placed on each site. */
  readonly load: Int32Array;
  /** What adapters of lower priority hold there now: room that is taken from them only where there is no other. */
  readonly lowerBytes: Float64Array;
  /** The largest adapter that has been placed there: its next revision comes before the present one can go. */
  readonly largestBytes: Float64Array;
  readonly hashes: readonly number[];
  readonly index: ReadonlyMap<string, number>;
  /** By site, the place of its zone among all. */
  readonly zones: Int32Array;
  readonly zoneCount: number;

  constructor(sites: readonly Site[]) {
    this.sites = sites;
    this.freeBytes = Float64Array.from(sites, ({ roomBytes }) => roomBytes ?? Number.POSITIVE_INFINITY);
    this.load = new Int32Array(sites.length);
    this.lowerBytes = new Float64Array(sites.length);
    this.largestBytes = new Float64Array(sites.length);
    this.hashes = sites.map(({ id }) => hashOf(id));
    this.index = new Map(sites.map(({ id }, index) => [id, index]));
    const names = [...new Set(sites.map(({ zone }) => zone))];
    this.zones = Int32Array.from(sites, ({ zone }) => names.indexOf(zone));
    this.zoneCount = names.length;
  }

  reports(site: number): boolean {
    return this.sites[site]?.roomBytes !== null;
  }

  /** How many adapters more than slots are placed there; below 0: how many slots are free. */
  excess(site: number): number {
    return (this.load[site] as number) - (this.sites[site]?.slots ?? 0);
  }
}

/** One adapter while pods are given out to it. */
export class Seat {
  readonly claim: Claim;
  readonly wanted: Wanted;
  readonly placed = new Set<number>();
  /** Where pods report that they hold it. */
  readonly held: ReadonlySet<number>;
  readonly #hash: number;
  readonly #board: Board;
  readonly #perZone: Int32Array;

  constructor(claim: Claim, board: Board) {
    this.claim = claim;
    this.#board = board;
    this.#hash = hashOf(claim.id);
    this.#perZone = new Int32Array(board.zoneCount);
    this.held = new Set([...claim.held].flatMap((id) => board.index.get(id) ?? []));
    this.wanted = wantedBy(claim, board.sites.length);
  }

  get lacks(): boolean {
    return this.placed.size < this.wanted.least;
  }

  /** It may give a pod up and still has what it needs. */
  get hasExtra(): boolean {
    return this.placed.size > this.wanted.least;
  }

  fits(site: number): boolean {
    return this.#board.reports(site) && (this.#board.freeBytes[site] as number) >= this.claim.bytes;
  }

  fitsBesideLower(site: number): boolean {
    const { freeBytes, lowerBytes } = this.#board;
    return (freeBytes[site] as number) - (lowerBytes[site] as number) >= this.claim.bytes;
  }

  /** Beside it there would still be room for the next revision of any that is there. */
  leavesHeadroom(site: number): boolean {
    const { freeBytes, largestBytes } = this.#board;
    const nextBytes = Math.max(this.claim.bytes, largestBytes[site] as number);
    return (freeBytes[site] as number) - this.claim.bytes >= nextBytes;
  }

  /** How many of its pods are in the zone of a site; 0 where it need not be spread. */
  inZoneOf(site: number): number {
    if (!this.claim.spread) return 0;
    return this.#perZone[this.#board.zones[site] as number] as number;
  }

  /** Some zone has at least two pods more than another. */
  get isUneven(): boolean {
    return this.claim.spread && Math.max(...this.#perZone) - Math.min(...this.#perZone) >= 2;
  }

  /** It would rather be on `a`, where nothing else tells the two apart. */
  outweighs(a: number, b: number): boolean {
    const { sites } = this.#board;
    const by = this.#score(a) - this.#score(b);
    return by === 0 ? (sites[a]?.id ?? '') < (sites[b]?.id ?? '') : by > 0;
  }

  /** Of rendezvous hashing; few are asked for where most adapters stay. */
  #score(site: number): number {
    const { sites, hashes } = this.#board;
    return scoreOf(weightOf(this.#hash, hashes[site] as number), sites[site]?.kvFree ?? 1);
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
    const { freeBytes, largestBytes, load, zones } = this.#board;
    const zone = zones[site] as number;
    freeBytes[site] = (freeBytes[site] as number) - by * this.claim.bytes;
    largestBytes[site] = Math.max(largestBytes[site] as number, this.claim.bytes);
    load[site] = (load[site] as number) + by;
    this.#perZone[zone] = (this.#perZone[zone] as number) + by;
  }
}
