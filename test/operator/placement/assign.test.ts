import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { absorb, answerOf } from '../../../operator/placement/absorb.ts';
import { assign, type Share } from '../../../operator/placement/assign.ts';
import type { Claim, Site } from '../../../operator/placement/claim.ts';

const SEED = { seed: 20261130, numRuns: 500 };
const NOTHING: ReadonlySet<string> = new Set();

function site(name: string, more: Partial<Site> = {}): Site {
  return { id: `uid-${name}`, name, zone: null, slots: 100, roomBytes: 1_000, kvFree: 1, ...more };
}

function claim(id: string, more: Partial<Claim> = {}): Claim {
  const shape = { mode: 'Fixed', replicas: 1, priority: 0, spread: false } as const;
  return { id, ...shape, since: 0, bytes: 10, byTraffic: 0, held: NOTHING, ...more };
}

const sitesOf = (...names: string[]) => names.map((name) => site(name));
const namesOf = (share: Share | undefined) => [...(share?.pods ?? [])].map((id) => id.slice(4)).sort();
const placesOf = (shares: ReadonlyMap<string, Share>) =>
  Object.fromEntries([...shares].map(([id, share]) => [id, namesOf(share)]));
/** What pods report once they hold what they should, and nothing else. */
const fedBack = (claims: readonly Claim[], shares: ReadonlyMap<string, Share>) =>
  claims.map((item) => ({ ...item, held: new Set(shares.get(item.id)?.pods) }));

const Sites = fc
  .array(
    fc.record({
      zone: fc.constantFrom(null, 'a', 'b', 'c'),
      slots: fc.integer({ min: 1, max: 4 }),
      roomBytes: fc.oneof({ weight: 6, arbitrary: fc.integer({ min: 0, max: 100 }) }, fc.constant(null)),
      kvFree: fc.constantFrom(0, 0.1, 0.5, 1),
    }),
    { maxLength: 8 },
  )
  .map((list) => list.map((more, index) => site(`p${index}`, more)));

const Replicas = fc.oneof(fc.integer({ min: 0, max: 5 }), fc.constantFrom('0%', '30%', '50%', '100%'));

const Claims = fc
  .array(
    fc.record({
      mode: fc.constantFrom<Claim['mode']>('Fixed', 'Fixed', 'Auto', 'Auto', 'All'),
      replicas: Replicas,
      spread: fc.boolean(),
      priority: fc.constantFrom(0, 0, 0, 1, 2),
      since: fc.integer({ min: 0, max: 3 }),
      bytes: fc.integer({ min: 0, max: 40 }),
      byTraffic: fc.constantFrom(0, 1, 2, 5, 9),
      held: fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 6 }),
    }),
    { maxLength: 10 },
  )
  .map((list) =>
    list.map(({ held, ...more }, index) =>
      claim(`a${index}`, { ...more, held: new Set(held.map((pod) => `uid-p${pod}`)) }),
    ),
  );

/** Room for some: what becomes larger is taken in here and not there. */
const Growth = fc.record({ at: fc.nat(9), bytes: fc.integer({ min: 0, max: 80 }) });

/** Room for all on every pod: nothing moves for want of it. */
const roomy = (sites: readonly Site[]) => sites.map((item) => ({ ...item, slots: 100, roomBytes: 10_000 }));

describe('any pool', () => {
  it('gets the same answer for the same input, in whatever order it is told', () => {
    fc.assert(
      fc.property(Sites, Claims, fc.integer(), (sites, claims, at) => {
        const turn = <T>(list: T[]) => [
          ...list.slice(Math.abs(at) % (list.length || 1)),
          ...list.slice(0, Math.abs(at) % (list.length || 1)),
        ];
        expect(placesOf(assign(turn(claims), turn(sites)))).toEqual(placesOf(assign(claims, sites)));
      }),
      SEED,
    );
  });

  it('may take in adapters that become larger only where nobody would be placed elsewhere for it', () => {
    fc.assert(
      fc.property(Sites, Claims, fc.array(Growth, { maxLength: 4 }), (sites, claims, growths) => {
        const answer = answerOf(claims, sites);
        let grown = claims;
        for (const { at, bytes } of growths) {
          if (!absorb(answer, `a${at}`, bytes)) continue;
          grown = grown.map((item) => (item.id === `a${at}` ? { ...item, bytes } : item));
        }
        expect(placesOf(assign(fedBack(grown, answer.byId), sites))).toEqual(placesOf(answer.byId));
      }),
      SEED,
    );
    const answer = answerOf([claim('a'), claim('b')], sitesOf('p'));
    expect(absorb(answer, 'a', 990)).toBe(true);
    expect(absorb(answer, 'b', 11)).toBe(false);
    expect(absorb(answer, 'a', 989)).toBe(false);
  });

  it('does not flap: the answer, fed back as what pods hold, is the answer', () => {
    fc.assert(
      fc.property(Sites, Claims, (sites, claims) => {
        const first = assign(claims, sites);
        expect(placesOf(assign(fedBack(claims, first), sites))).toEqual(placesOf(first));
      }),
      { ...SEED, numRuns: 5_000 },
    );
  });

  it('moves nothing for the sake of free KV blocks, however they come and go', () => {
    fc.assert(
      fc.property(Sites, Claims, fc.infiniteStream(fc.constantFrom(0, 0.25, 1)), (sites, claims, free) => {
        const first = assign(claims, sites);
        const after = sites.map((item) => ({ ...item, kvFree: free.next().value as number }));
        expect(placesOf(assign(fedBack(claims, first), after))).toEqual(placesOf(first));
      }),
      { ...SEED, numRuns: 3_000 },
    );
  });

  it('never brings an adapter to a pod because it has fewer KV blocks free, nor away because it has more', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.nat(), fc.string(), (count, at, id) => {
        const pods = (kvFree: number) =>
          Array.from({ length: count }, (_, index) =>
            site(`p${index}`, { kvFree: index === at % count ? kvFree : 0.5 }),
          );
        const isAt = (kvFree: number) =>
          namesOf(assign([claim(id)], pods(kvFree)).get(id)).includes(`p${at % count}`);
        if (isAt(0.2)) expect(isAt(0.5)).toBe(true);
        if (isAt(0.5)) expect(isAt(0.9)).toBe(true);
      }),
      SEED,
    );
  });

  it('has no pod with more than its host memory, but for what All puts there', () => {
    fc.assert(
      fc.property(Sites, Claims, (sites, claims) => {
        const shares = assign(claims, sites);
        for (const { id, roomBytes } of sites) {
          const there = claims.filter((item) => shares.get(item.id)?.pods.has(id));
          const chosen = there.filter(({ mode, bytes }) => mode !== 'All' && bytes > 0);
          const bytes = there.reduce((sum, item) => sum + item.bytes, 0);
          if (roomBytes !== null && chosen.length > 0) expect(bytes).toBeLessThanOrEqual(roomBytes);
        }
      }),
      SEED,
    );
  });

  it('has All on every pod, as many as asked for elsewhere, and short only where no pod has room', () => {
    fc.assert(
      fc.property(Sites, Claims, (sites, claims) => {
        for (const { claim: item, pods, least, freeBytes } of assign(claims, sites).values()) {
          if (item.mode === 'All') expect(pods.size).toBe(sites.length);
          else if (item.mode === 'Fixed') expect(pods.size).toBeLessThanOrEqual(least);
          if (pods.size >= least) continue;
          for (const [index, { id, roomBytes }] of sites.entries()) {
            if (pods.has(id)) continue;
            expect(roomBytes).not.toBeNull();
            expect(freeBytes[index]).toBeLessThan(item.bytes);
          }
        }
      }),
      SEED,
    );
  });

  it('moves nothing when a pod comes, where there is room', () => {
    fc.assert(
      fc.property(Sites, Claims, (sites, claims) => {
        const before = roomy(sites);
        const fixed = claims.filter(({ mode, replicas }) => mode === 'Fixed' && typeof replicas === 'number');
        const shares = assign(fixed, before);
        const full = fixed.filter(({ id }) => (shares.get(id)?.pods.size ?? 0) === shares.get(id)?.least);
        const held = fedBack(full, shares).map((item) => ({ ...item, spread: false }));
        const after = assign(held, [...before, site('new', { roomBytes: 10_000 })]);
        for (const { id } of full) expect(namesOf(after.get(id))).toEqual(namesOf(shares.get(id)));
      }),
      SEED,
    );
  });

  it('moves only what was on a pod that goes, where there is room', () => {
    fc.assert(
      fc.property(Sites, Claims, (sites, claims) => {
        const before = roomy(sites);
        const fixed = claims.filter(({ mode, replicas }) => mode === 'Fixed' && typeof replicas === 'number');
        const calm = fixed.map((item) => ({ ...item, spread: false }));
        const shares = assign(calm, before);
        const [gone, ...left] = before;
        const after = assign(fedBack(calm, shares), left);
        for (const { id } of calm) {
          const stayed = namesOf(shares.get(id)).filter((name) => name !== gone?.name);
          expect(namesOf(after.get(id))).toEqual(expect.arrayContaining(stayed));
        }
      }),
      SEED,
    );
  });

  it('is even over zones to one pod, where there is room', () => {
    fc.assert(
      fc.property(Sites, Claims, (sites, claims) => {
        const there = roomy(sites);
        for (const { claim: item, pods } of assign(claims, there).values()) {
          if (!item.spread || item.mode === 'All') continue;
          const zones = Map.groupBy(there, ({ zone }) => zone);
          const counts = [...zones.values()].map((members) => ({
            placed: members.filter(({ id }) => pods.has(id)).length,
            isFull: members.every(({ id }) => pods.has(id)),
          }));
          const most = Math.max(0, ...counts.map(({ placed }) => placed));
          for (const { placed, isFull } of counts) if (!isFull) expect(most - placed).toBeLessThanOrEqual(1);
        }
      }),
      SEED,
    );
  });
});

describe('a pool with', () => {
  it('one adapter for one pod of two has it on one, and leaves it there', () => {
    const [first] = namesOf(assign([claim('sql')], sitesOf('p0', 'p1')).get('sql'));
    const other = first === 'p0' ? 'p1' : 'p0';
    const held = new Set([`uid-${other}`]);
    expect(placesOf(assign([claim('sql', { held })], sitesOf('p0', 'p1')))).toEqual({ sql: [other] });
  });

  it('many adapters has them on all pods in about equal numbers', () => {
    const sites = sitesOf('p0', 'p1', 'p2', 'p3');
    const claims = Array.from({ length: 80 }, (_, index) => claim(`a${index}`));
    const shares = [...assign(claims, sites).values()];
    for (const { id } of sites) {
      const count = shares.filter(({ pods }) => pods.has(id)).length;
      expect(count).toBeGreaterThan(10);
      expect(count).toBeLessThan(30);
    }
  });

  it('pods of which one has few KV blocks free gives it few adapters, and all when it has the only room', () => {
    const sites = [site('p0', { kvFree: 0.1, slots: 1_000 }), site('p1', { kvFree: 0.9, slots: 1_000 })];
    const claims = Array.from({ length: 200 }, (_, index) => claim(`a${index}`, { bytes: 1 }));
    const countAt = (shares: ReadonlyMap<string, Share>, name: string) =>
      [...shares.values()].filter((share) => namesOf(share).includes(name)).length;
    const shares = assign(claims, sites);
    expect(countAt(shares, 'p0')).toBeGreaterThan(5);
    expect(countAt(shares, 'p0')).toBeLessThan(40);
    const tight = [site('p0', { kvFree: 0 }), site('p1', { roomBytes: 0 })];
    expect(countAt(assign(claims, tight), 'p0')).toBe(200);
  });

  it('a pod that does not report has adapters elsewhere, and there only where nobody else is left', () => {
    const silent = site('p0', { roomBytes: null });
    const held = new Set([silent.id]);
    expect(placesOf(assign([claim('sql', { held })], [silent, site('p1')]))).toEqual({ sql: ['p1'] });
    for (const name of ['p0', 'p1']) {
      const all = [silent, site('p1', { roomBytes: null })];
      const where = placesOf(assign([claim('sql', { held: new Set([`uid-${name}`]) })], all));
      expect(where).toEqual({ sql: [name] });
    }
  });

  it('too little room gives it to the higher priority, then to the older', () => {
    const sites = [site('p0', { roomBytes: 10 })];
    const old = claim('old', { since: 1, held: new Set(['uid-p0']) });
    const young = claim('young', { since: 2 });
    expect(placesOf(assign([young, old], sites))).toEqual({ old: ['p0'], young: [] });
    const vip = claim('vip', { since: 3, priority: 1 });
    expect(placesOf(assign([young, old, vip], sites))).toEqual({ old: [], young: [], vip: ['p0'] });
  });

  it('room elsewhere does not have a higher priority drive a lower one out', () => {
    for (const id of ['vip-1', 'vip-2', 'vip-3', 'vip-4']) {
      const sites = [site('p0', { roomBytes: 10 }), site('p1', { roomBytes: 10 })];
      const low = claim('low', { held: new Set(['uid-p0']) });
      const places = placesOf(assign([claim(id, { priority: 1 }), low], sites));
      expect(places).toEqual({ [id]: ['p1'], low: ['p0'] });
    }
  });

  it('room on several pods leaves each adapter room for its next revision', () => {
    const sites = [site('p0', { roomBytes: 100 }), site('p1', { roomBytes: 100 })];
    for (const id of ['b', 'c', 'd', 'e', 'f']) {
      const shares = assign([claim('a', { bytes: 40 }), claim(id, { bytes: 40 })], sites);
      expect(Object.values(placesOf(shares)).flat().sort()).toEqual(['p0', 'p1']);
    }
  });

  it('a pod with more adapters than slots gives some to a pod with free ones', () => {
    const held = new Set(['uid-p0']);
    const claims = ['a', 'b', 'c'].map((id) => claim(id, { held }));
    const places = Object.values(
      placesOf(assign(claims, [site('p0', { slots: 2 }), site('p1', { slots: 2 })])),
    );
    expect(places.flat().sort()).toEqual(['p0', 'p0', 'p1']);
  });
});

describe('an adapter by traffic', () => {
  const sites = Array.from({ length: 10 }, (_, index) => site(`p${index}`));
  const replicas = (byTraffic: number, least: Claim['replicas'], pods: readonly Site[] = sites) =>
    assign([claim('hot', { mode: 'Auto', replicas: least, byTraffic })], pods).get('hot')?.pods.size;

  it('has as many pods as that asks for, at least what it asks for itself, and none too few for want of room', () => {
    expect([0, 1, 4, 10, 11].map((byTraffic) => replicas(byTraffic, 1))).toEqual([1, 1, 4, 10, 10]);
    expect([0, 4].map((byTraffic) => replicas(byTraffic, '20%'))).toEqual([2, 4]);
    const full = sites.map((item, index) => ({ ...item, roomBytes: index < 3 ? 10 : 9 }));
    expect(replicas(5, 1, full)).toBe(3);
  });

  it('gives up what it has above its least to one of its priority that has nothing', () => {
    const tight = sites.slice(0, 2).map((item) => ({ ...item, roomBytes: 10 }));
    const held = new Set(tight.map(({ id }) => id));
    const hot = claim('hot', { mode: 'Auto', byTraffic: 2, held });
    const shares = assign([hot, claim('cold', { since: 1 })], tight);
    expect([...shares.values()].map(({ pods }) => pods.size)).toEqual([1, 1]);
  });
});
