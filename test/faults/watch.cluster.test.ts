import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Point, reference, runPoints, runScenario, tell } from './matrix.ts';
import type { ScenarioName } from './scenarios.ts';
import {
  blackHole,
  delay,
  drop,
  duplicate,
  expirePage,
  type Faulty,
  failCall,
  listingCalls,
  listingEvents,
  miss,
  reorder,
  status,
} from './watch-plans.ts';
import { FaultWorld } from './world.ts';

const MATRIX_MS = 600_000;
/** What heals a watch that lies is the next list; one that is silent, the next watch. */
const HEALING_MS = 1_500;

const EVENT_FAULTS = { drop, duplicate, delay, reorder, miss, blackHole };
/** For what is much like another scenario. */
const SOME_EVENT_FAULTS = { drop, miss };
const CALL_FAULTS = {
  '500': () => status(500, 'InternalError'),
  '429': () => status(429, 'TooManyRequests', { 'retry-after': '1' }),
  reset: () => 'reset' as const,
};
const READ_FAULTS = { ...CALL_FAULTS, '410': () => status(410, 'Expired') };

/** Starts an API server and an object store, and some hundred operators: about a minute. */
describe('an operator', () => {
  let world: FaultWorld;

  beforeAll(async () => {
    world = await FaultWorld.start();
  });
  afterAll(() => world?.stop());

  function pointOf(name: string, { plan, unmet }: Faulty): Point {
    const options = { plan, relistMs: HEALING_MS, inactivityMs: HEALING_MS };
    return { name, options, allowance: 0, unmet };
  }

  async function check(what: string, scenario: ScenarioName, points: Point[]): Promise<void> {
    const expected = await reference(world, scenario);
    const results = await runPoints(world, { scenario, expected, points });
    tell(`${what}, ${scenario}`, results);
    expect(results.filter(({ failures }) => failures.length > 0)).toEqual([]);
    expect(results.filter(({ unmet }) => unmet === null).length).toBeGreaterThan(points.length / 2);
  }

  it.each<ScenarioName>(['new content', 'pool change', 'scale'])(
    'comes to the same end whichever event of a watch is not as it should be: %s',
    { timeout: MATRIX_MS },
    async (scenario) => {
      const { kinds, plan } = listingEvents();
      await runScenario(world, scenario, { plan });
      const points = kinds.flatMap((kind, index) =>
        Object.entries(scenario === 'scale' ? SOME_EVENT_FAULTS : EVENT_FAULTS).map(([fault, make]) =>
          pointOf(`${scenario}: ${fault} event ${index + 1}, ${kind}`, make(index + 1)),
        ),
      );
      await check('events', scenario, points);
    },
  );

  it.each<ScenarioName>(['push'])(
    'comes to the same end whichever call to the API server fails: %s',
    { timeout: MATRIX_MS },
    async (scenario) => {
      const { calls, plan } = listingCalls();
      await runScenario(world, scenario, { plan });
      const points = calls.flatMap((call, index) =>
        Object.entries(/^(LIST|WATCH)/.test(call) ? READ_FAULTS : CALL_FAULTS).map(([fault, make]) =>
          pointOf(`${scenario}: ${fault} for call ${index + 1}, ${call}`, failCall(index + 1, make())),
        ),
      );
      const pages = calls
        .filter((call) => call.startsWith('LIST'))
        .map((call, index) =>
          pointOf(`${scenario}: 410 for page 2 of list ${index + 1}, ${call}`, expirePage(index + 1)),
        );
      await check('calls', scenario, [...points, ...pages]);
    },
  );
});
