import { isDeepStrictEqual } from 'node:util';
import { type Outcome, outcomeOf, redundant } from './oracle.ts';
import { SCENARIOS, type ScenarioName } from './scenarios.ts';
import { Site, type SiteOptions } from './site.ts';
import type { FaultWorld } from './world.ts';

const AT_ONCE = 12;

export interface Point {
  name: string;
  options: Omit<SiteOptions, 'number'>;
  /** How often each pod may be asked for each thing beyond the reference. */
  allowance: number;
  /** The fault took place. */
  happened?: () => boolean;
}

export interface Result {
  name: string;
  reached: boolean;
  /** Empty where it ended as the reference did. */
  failures: string[];
  /** The reference still knew who pushed, and this does not. */
  lostPusher: boolean;
}

interface Run {
  outcome: Outcome;
  reached: boolean;
  crashes: number;
}

async function run(
  world: FaultWorld,
  scenario: ScenarioName,
  options: Omit<SiteOptions, 'number'>,
): Promise<Run> {
  const { pods, act } = SCENARIOS[scenario];
  const site = await Site.start(world, { ...options, number: world.nextNumber() }, pods);
  try {
    await act(site);
    await site.untilQuiet();
    if (site.deaths.length > 0) throw new Error(site.deaths.join('; '));
    return { outcome: await outcomeOf(site), reached: site.writes.reached, crashes: site.crashes };
  } finally {
    await site.stop();
  }
}

/** Twice: what is not the same in both says nothing about a fault. */
export async function reference(world: FaultWorld, scenario: ScenarioName): Promise<Outcome> {
  const [first, second] = await Promise.all([run(world, scenario, {}), run(world, scenario, {})]);
  for (const part of ['end', 'updates'] as const) {
    if (!isDeepStrictEqual(first.outcome[part], second.outcome[part]))
      throw new Error(
        `two runs of ${scenario} without faults differ: ${diff(first.outcome[part], second.outcome[part])}`,
      );
  }
  return first.outcome;
}

/** Runs the points, some at a time, and compares each with the reference. */
export async function runPoints(
  world: FaultWorld,
  { scenario, expected, points }: { scenario: ScenarioName; expected: Outcome; points: Point[] },
): Promise<Result[]> {
  const results: Result[] = [];
  const waiting = [...points];
  const worker = async () => {
    for (let point = waiting.shift(); point !== undefined; point = waiting.shift())
      results.push(await runPoint(world, scenario, expected, point));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return results;
}

async function runPoint(
  world: FaultWorld,
  scenario: ScenarioName,
  expected: Outcome,
  { name, options, allowance, happened }: Point,
): Promise<Result> {
  try {
    const { outcome, reached } = await run(world, scenario, options);
    const failures = redundant(outcome.updates, expected.updates, allowance);
    if (!isDeepStrictEqual(outcome.end, expected.end)) failures.push(diff(outcome.end, expected.end));
    const lostPusher = expected.namesPusher && !outcome.namesPusher;
    return { name, reached: happened?.() ?? reached, failures, lostPusher };
  } catch (error) {
    const { message, cause } = error as Error;
    return { name, reached: true, failures: [`${message} (${cause ?? ''})`], lostPusher: false };
  }
}

/** One line for people: how many points there were, and what is known to be lost at some of them. */
export function tell(what: string, results: Result[]): void {
  const reached = results.filter((result) => result.reached);
  const lost = results.filter(({ lostPusher }) => lostPusher).length;
  const known = lost > 0 ? `; known: ${lost} end without pushedBy, which pods do not keep` : '';
  console.log(`${what}: ${reached.length} of ${results.length} points reached${known}`);
}

/** Where two JSON values differ, by path. */
function diff(actual: unknown, expected: unknown, path = ''): string {
  if (isDeepStrictEqual(actual, expected)) return '';
  if (!isObject(actual) || !isObject(expected))
    return `${path}: ${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}`;
  const keys = [...new Set([...Object.keys(actual), ...Object.keys(expected)])];
  return keys
    .map((key) => diff(actual[key], expected[key], `${path}.${key}`))
    .filter((line) => line !== '')
    .join('\n');
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
