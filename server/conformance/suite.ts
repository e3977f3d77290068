import { PodState } from '../contract/adapter-api.ts';
import { AdapterMaker } from './adapters.ts';
import { Bench, PREFIX, path } from './bench.ts';
import type { Check } from './check.ts';
import { Client, type Tls } from './client.ts';
import { requireAnswer, Skipped, Unmet } from './expectations.ts';

export interface Target {
  admin: string;
  /** Null: checks of the serving API are skipped. */
  serving: string | null;
  /** Null: calls go without, and checks of it are skipped. */
  token: string | null;
  tls: Tls;
}

export interface SuiteOptions {
  target: Target;
  checks: Check[];
  /** Takes away what an earlier run left. */
  isForced: boolean;
  /** No other run has the same. */
  salt: string;
  patienceMs: number;
  onResult(result: Result): void;
}

export interface Result {
  check: Check;
  outcome: 'pass' | 'fail' | 'skip';
  /** Of one that was skipped. */
  reason: string | null;
  /** Of one that failed. */
  expected: string | null;
  actual: string | null;
  ms: number;
}

export interface Outcome {
  pod: PodState;
  results: Result[];
}

/** The suite cannot run against this server. */
export class Unfit extends Error {}

/** Runs the checks one after the other, and leaves the server as it found it, but for its counters. */
export async function runSuite(options: SuiteOptions): Promise<Outcome> {
  const { admin: url, token, tls, serving: servingUrl } = options.target;
  const admin = new Client(url, { token, tls });
  const stranger = new Client(url, { token: null, tls });
  const serving = servingUrl === null ? null : new Client(servingUrl, { token: null, tls });
  try {
    const before = await firstState(admin);
    await requireNoRemains(admin, before, options.isForced);
    const adapters = new AdapterMaker(before, options.salt);
    if (adapters.modules.length === 0)
      throw new Unfit('Its state names no module of a layer that the suite can adapt (q_proj … down_proj)');
    const { patienceMs } = options;
    const results: Result[] = [];
    for (const check of options.checks) {
      const bench = new Bench({ admin, stranger, serving, adapters, before, patienceMs, label: check.name });
      const reason = lacking(check, options.target);
      const result = reason === null ? await runOne(check, bench) : skipped(check, reason);
      results.push(result);
      options.onResult(result);
    }
    return { pod: before, results };
  } finally {
    await Promise.all([admin, stranger, serving].map((client) => client?.close()));
  }
}

async function firstState(admin: Client): Promise<PodState> {
  const answer = await admin.call('GET', path.state).catch((cause: Error) => {
    throw new Unfit(`${admin.url} does not answer: ${cause.message}`, { cause });
  });
  try {
    return requireAnswer(answer, PodState);
  } catch (error) {
    if (error instanceof Unmet) throw new Unfit(`${admin.url} is no admin API: ${error.message}`);
    throw error;
  }
}

async function requireNoRemains(admin: Client, { adapters }: PodState, isForced: boolean): Promise<void> {
  const remains = adapters.filter(({ name }) => name.startsWith(PREFIX));
  if (remains.length === 0) return;
  if (!isForced) {
    const names = remains.map(({ name }) => name).slice(0, 3);
    throw new Unfit(
      `It has adapters ${names.join(', ')}: another run goes on, or left them; --force takes them away`,
    );
  }
  for (const { name } of remains) await admin.call('DELETE', path.adapter(name));
}

function lacking({ needs }: Check, { serving, token }: Target): string | null {
  if (needs === 'serving' && serving === null) return 'no --serving';
  if (needs === 'token' && token === null) return 'no --token-file';
  return null;
}

function skipped(check: Check, reason: string): Result {
  return { check, outcome: 'skip', reason, expected: null, actual: null, ms: 0 };
}

async function runOne(check: Check, bench: Bench): Promise<Result> {
  const startedMs = performance.now();
  const error = await outcomeOf(async () => check.run(bench));
  const dirty = await outcomeOf(() => bench.clean());
  const ms = Math.round(performance.now() - startedMs);
  if (error instanceof Skipped) return { ...skipped(check, error.message), ms };
  const failure = error ?? dirty;
  if (failure === null) return { check, outcome: 'pass', reason: null, expected: null, actual: null, ms };
  const { expected, actual } = failure instanceof Unmet ? failure : broken(failure);
  return { check, outcome: 'fail', reason: null, expected, actual, ms };
}

async function outcomeOf(run: () => Promise<void>): Promise<Error | null> {
  try {
    await run();
    return null;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** A connection that broke, say. */
function broken(error: Error): { expected: string; actual: string } {
  const cause = error.cause instanceof Error ? `: ${error.cause.message}` : '';
  return { expected: 'an answer', actual: `${error.name}: ${error.message}${cause}` };
}
