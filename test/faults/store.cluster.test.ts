import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Point, reference, runPoints, runScenario, tell } from './matrix.ts';
import type { ScenarioName } from './scenarios.ts';
import { listingRequests, plansFor, RANGES, type StoreRequest } from './store-plans.ts';
import { FaultWorld } from './world.ts';

const MATRIX_MS = 600_000;

/** Starts an API server and an object store, and some eighty operators: about half a minute. */
describe('an operator', () => {
  let world: FaultWorld;

  beforeAll(async () => {
    world = await FaultWorld.start();
  });
  afterAll(() => world?.stop());

  async function requestsOf(scenario: ScenarioName): Promise<StoreRequest[]> {
    const { fault, requests } = listingRequests();
    await runScenario(world, scenario, { storeFault: fault, sourceRanges: RANGES });
    return requests;
  }

  it.each<{ scenario: ScenarioName; after?: ScenarioName; chosen: number; again?: number }>([
    { scenario: 'apply', chosen: 1 / 3 },
    // Before that it is what the other scenario is.
    { scenario: 'new content', after: 'apply', chosen: 1 },
    // A push that is refused is sent again, over pods that let go of the first.
    { scenario: 'durable push', chosen: 1, again: 1 },
  ])(
    'comes to the same end whatever an object store does to any request: $scenario',
    { timeout: MATRIX_MS },
    async ({ scenario, after, chosen, again = 0 }) => {
      const first = after === undefined ? 0 : (await requestsOf(after)).length;
      const requests = await requestsOf(scenario);
      const all = requests.slice(first).flatMap((request, index) =>
        plansFor(request, first + index + 1).map(
          ({ name, course, unmet }): Point => ({
            name: `${scenario}: ${name} at request ${first + index + 1}, ${request.words}`,
            options: course,
            allowance: again,
            loadsAllowed: again,
            unmet,
          }),
        ),
      );
      const points = all.filter(
        (_, index) => Math.floor(index * chosen) !== Math.floor((index + 1) * chosen),
      );
      const expected = await reference(world, scenario);
      const results = await runPoints(world, { scenario, expected, points });
      tell(`object store, ${scenario}, ${points.length} of ${all.length} points chosen`, results);
      expect(results.filter(({ failures }) => failures.length > 0)).toEqual([]);
      expect(results.filter(({ unmet }) => unmet !== null)).toEqual([]);
    },
  );
});
