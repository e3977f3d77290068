import { compare, type Outcome, outcomeOf, redundant } from './oracle.ts';
import { SCENARIOS, type ScenarioName } from './scenarios.ts';
import { Site, type SiteOptions } from './site.ts';
import type { FaultWorld } from './world.ts';

const AT_ONCE = 16;

export interface Course extends Omit<SiteOptions, 'number'> {
  /** Before the scenario begins, and when it has ended. */
  arrange?(site: Site): void;
  disturb?(site: Site): Promise<void>;
  /** Status, too, may say then what is not so. */
  podsLie?: boolean;
}

export interface Point {
  name: string;
  options: Course;
  /** How often each pod may be asked for each thing beyond the reference. */
  allowance: number;
  /** The same for each digest that a pod packs or serves, where pods start anew. */
  loadsAllowed?: number;
  /** Why the fault did not take place, asked when the run has ended; null: it did. */
  unmet?: () => string | null;
}

export interface Result {
  name: string;
  /** Null where the fault took place. */
  unmet: string | null;
  /** Empty where it ended as the reference did. */
  failures: string[];
  /** Differences that are no failures, by their reasons. */
  known: string[];
}

interface Run {
  outcome: Outcome;
  reached: boolean;
  crashes: number;
}

export async function runScenario(
  world: FaultWorld,
  scenario: ScenarioName,
  { arrange, disturb, podsLie = false, ...options }: Course,
  expected: Outcome | null = null,
): Promise<Run> {
  const { pods, act } = SCENARIOS[scenario];
  const site = await Site.start(world, { ...options, number: world.nextNumber() }, pods);
  try {
    arrange?.(site);
    await act(site);
    await disturb?.(site);
    if (expected !== null) await site.until('it ends as without faults', () => endsAs(site, expected));
    await site.untilQuiet();
    if (site.untruths.length > 0 && !podsLie) throw new Error(site.untruths.join('; '));
    if (site.deaths.length > 0) throw new Error(site.deaths.join('; '));
    return { outcome: await outcomeOf(site), reached: site.writes.reached, crashes: site.crashes };
  } finally {
    await site.stop();
  }
}

async function endsAs(site: Site, expected: Outcome): Promise<true> {
  const { failures } = compare((await outcomeOf(site)).end, expected.end);
  if (failures.length > 0) throw new Error(failures.join('\n'));
  return true;
}

/** Twice: what is not the same in both says nothing about a fault. */
export async function reference(world: FaultWorld, scenario: ScenarioName): Promise<Outcome> {
  const [first, second] = await Promise.all([
    runScenario(world, scenario, {}),
    runScenario(world, scenario, {}),
  ]);
  const { failures, known } = compare(first.outcome.end, second.outcome.end);
  failures.push(...redundant(first.outcome.updates, second.outcome.updates, 0));
  failures.push(...redundant(first.outcome.loads, second.outcome.loads, 0));
  if (failures.length + known.length > 0)
    throw new Error(`two runs of ${scenario} without faults differ: ${[...failures, ...known].join('\n')}`);
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
  { name, options, allowance, loadsAllowed = 0, unmet }: Point,
): Promise<Result> {
  try {
    const { outcome, reached } = await runScenario(world, scenario, options, expected);
    const { failures, known } = compare(outcome.end, expected.end);
    failures.push(...redundant(outcome.updates, expected.updates, allowance + outcome.refusals));
    failures.push(...redundant(outcome.loads, expected.loads, loadsAllowed));
    const whyNot = reached ? (unmet?.() ?? null) : 'the run had fewer writes';
    return { name, unmet: whyNot, failures, known };
  } catch (error) {
    const { message, cause } = error as Error;
    return { name, unmet: null, failures: [`${message} (${cause ?? ''})`], known: [] };
  }
}

/** For people: at how many points the fault was met, why not at the others, and what is known to be lost. */
export function tell(what: string, results: Result[]): void {
  const notMet = results.filter(({ unmet }) => unmet !== null);
  const counts = new Map<string, number>();
  for (const why of results.flatMap(({ known }) => known)) counts.set(why, (counts.get(why) ?? 0) + 1);
  const known = [...counts].map(([why, count]) => `; known, ${count} times: ${why}`).join('');
  const others = notMet.map(({ name, unmet }) => `\n  not met: ${name}: ${unmet}`).join('');
  console.log(`${what}: ${results.length - notMet.length} of ${results.length} faults met${known}${others}`);
}
