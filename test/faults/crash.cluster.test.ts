import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Point, reference, runPoints, tell } from './matrix.ts';
import type { ScenarioName } from './scenarios.ts';
import { FaultWorld } from './world.ts';

/** What was under way when the operator ended is done anew by the next one, or by the trainer that heard nothing. */
const ALLOWANCE = 1;
const MATRIX_MS = 180_000;

/** Starts an API server and an object store, and some hundred operators: about a minute. */
describe('an operator that crashes at any of its writes', () => {
  let world: FaultWorld;

  beforeAll(async () => {
    world = await FaultWorld.start();
  });
  afterAll(() => world?.stop());

  const scenarios: ScenarioName[] = ['push'];
  it.each(scenarios)(
    'is succeeded by one that brings %s to the same end',
    { timeout: MATRIX_MS },
    async (scenario) => {
      const expected = await reference(world, scenario);
      const points = expected.writes.flatMap((line, index): Point[] =>
        (['before', 'after'] as const).map((when) => ({
          name: `${scenario}: ${when} write ${index + 1}, ${line}`,
          options: { crash: { write: index + 1, when } },
          allowance: ALLOWANCE,
        })),
      );
      const results = await runPoints(world, { scenario, expected, points });
      tell(`crashes, ${scenario}`, results);
      const reached = results.filter((result) => result.reached);
      expect(results.filter(({ failures }) => failures.length > 0)).toEqual([]);
      expect(reached.length).toBeGreaterThan(points.length / 2);
    },
  );
});
