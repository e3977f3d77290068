import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Point, reference, runPoints, tell } from './matrix.ts';
import { SCENARIOS, type ScenarioName } from './scenarios.ts';
import { staleAfterRestart } from './stale.ts';
import { FaultWorld } from './world.ts';

/** What was under way when the operator ended is done anew by the next one, or by the trainer that heard nothing. */
const ALLOWANCE = 1;
const BOTH = ['before', 'after'] as const;
/** For scenarios that are long, and much like another one: before a write is after the one before it, but for timers. */
const AFTER = ['after'] as const;
const LONG = new Set<ScenarioName>(['durable push', 'scale']);
const MATRIX_MS = 600_000;

/** Starts an API server and an object store, and some hundred operators: about a minute. */
describe('an operator that crashes at any of its writes', () => {
  let world: FaultWorld;

  beforeAll(async () => {
    world = await FaultWorld.start();
  });
  afterAll(() => world?.stop());

  async function check(what: string, scenario: ScenarioName, pointsOf: (writes: string[]) => Point[]) {
    const expected = await reference(world, scenario);
    const points = pointsOf(expected.writes);
    const results = await runPoints(world, { scenario, expected, points });
    tell(`${what}, ${scenario}`, results);
    expect(results.filter(({ failures }) => failures.length > 0)).toEqual([]);
    expect(results.filter(({ unmet }) => unmet === null).length).toBeGreaterThan(points.length / 2);
  }

  const scenarios = Object.keys(SCENARIOS) as ScenarioName[];
  it.each(scenarios)(
    'is succeeded by one that brings the world to the same end: %s',
    { timeout: MATRIX_MS },
    async (scenario) => {
      await check('crashes', scenario, (writes) =>
        writes.flatMap((line, index): Point[] =>
          (LONG.has(scenario) ? AFTER : BOTH).map((when) => ({
            name: `${scenario}: ${when} write ${index + 1}, ${line}`,
            options: { crash: { write: index + 1, when } },
            allowance: ALLOWANCE,
          })),
        ),
      );
    },
  );

  it.each<ScenarioName>(['another push', 'pool change'])(
    'is succeeded by one that is shown an older world first, and does no harm by it: %s',
    { timeout: MATRIX_MS },
    async (scenario) => {
      await check('crashes into the past', scenario, (writes) =>
        writes.map((line, index): Point => {
          const { plan, unmet } = staleAfterRestart();
          return {
            name: `${scenario}: after write ${index + 1}, ${line}`,
            options: { plan, crash: { write: index + 1, when: 'after' } },
            allowance: ALLOWANCE,
            unmet,
          };
        }),
      );
    },
  );
});
