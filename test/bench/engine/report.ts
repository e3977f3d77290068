import { CASE_TITLES, type Case } from './cases.ts';
import { bestOf, type Floors, type Limit, limitOf } from './floors.ts';
import type { Peer } from './peer.ts';
import type { Processor } from './processor.ts';
import type { Shape } from './shape.ts';
import { median, type TurnResult } from './trace.ts';

/** The turns of one round by the name of the engine; one that failed is absent. */
export type Round = Record<string, TurnResult>;

/** All that was measured. */
export interface Measured {
  date: string;
  processor: Processor;
  shape: Shape;
  cases: Case[];
  engines: { name: string; unavailable: string | null }[];
  /** Before the first round and after the last. */
  floors: Floors[];
  rounds: Round[];
}

export interface Row {
  name: string;
  title: string;
  /** Medians over the rounds by engine, tokens per second. */
  rates: Record<string, number>;
  /** Ours by each other engine's: medians over the rounds of the round's ratio. */
  ratios: Record<string, number>;
  limit: Limit;
  /** Of the limit that ours reaches. */
  share: number;
}

export function summarize({ cases, engines, floors, rounds, shape }: Measured): Row[] {
  const best = bestOf(floors);
  return cases.map((item) => {
    const limit = limitOf(item, shape, best);
    const rates: Record<string, number> = {};
    const ratios: Record<string, number> = {};
    for (const { name } of engines) {
      const both = rounds.flatMap((round) => {
        const rate = round[name]?.rates[item.name];
        return rate === undefined ? [] : [{ rate, ours: round.ours?.rates[item.name] ?? Number.NaN }];
      });
      if (both.length === 0) continue;
      rates[name] = median(both.map(({ rate }) => rate));
      if (name !== 'ours') ratios[name] = median(both.map(({ rate, ours }) => ours / rate));
    }
    const share = (rates.ours ?? Number.NaN) / limit.tokensPerSecond;
    return { name: item.name, title: CASE_TITLES[item.name] ?? item.name, rates, ratios, limit, share };
  });
}

export function printReport(measured: Measured, peers: Peer[]): void {
  const rows = summarize(measured);
  const others = measured.engines.filter(({ name }) => name !== 'ours').map(({ name }) => name);
  const { rounds } = measured;
  console.log(
    `\nTokens per second, medians of ${rounds.length} ${rounds.length === 1 ? 'round' : 'rounds'}\n`,
  );
  const head = [
    '',
    'ours',
    ...others,
    ...others.map((name) => `/ ${name}`),
    'limit',
    'ours of it',
    'limited by',
  ];
  const lines = rows.map(({ title, rates, ratios, limit, share }) => [
    title,
    figure(rates.ours),
    ...others.map((name) => figure(rates[name])),
    ...others.map((name) => (ratios[name] === undefined ? '-' : `${ratios[name].toFixed(2)} ×`)),
    figure(limit.tokensPerSecond),
    `${(100 * share).toFixed(0)} %`,
    limit.by,
  ]);
  printTable([head, ...lines]);
  console.log();
  for (const { name, unavailable } of peers) if (unavailable !== null) console.log(`${name}: ${unavailable}`);
  for (const [name, turn] of Object.entries(rounds[0] ?? {})) {
    if (turn.about !== null) console.log(`${name}: ${turn.about}`);
  }
  printPhases(measured);
  printLoad(rounds);
  printResident(rounds);
  printAgreement(rounds, others);
}

export function describeFloors(label: string, floors: Floors): string {
  const optional = (name: string, gflops: number | null) =>
    gflops === null ? '' : `, ${name} ${gflops.toFixed(0)} GFLOP/s`;
  return (
    `${label}: read ${floors.readGBps.toFixed(1)} GB/s, float32 ${floors.fmaGflops.toFixed(0)} GFLOP/s` +
    `${optional('bf16 dot', floors.dotGflops)}${optional('AMX bf16', floors.amxGflops)} (${floors.threads} threads)`
  );
}

function figure(rate: number | undefined): string {
  return rate === undefined ? '-' : rate.toFixed(rate < 100 ? 2 : 0);
}

function printTable(lines: string[][]): void {
  const widths = (lines[0] ?? []).map((_, column) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0)),
  );
  for (const line of lines) {
    const cells = line.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
    );
    console.log(cells.join('  ').trimEnd());
  }
}

/** Of our steps, in the last round. */
function printPhases({ cases, rounds }: Measured): void {
  const phases = rounds.at(-1)?.ours?.phases ?? {};
  const names = Object.keys(phases[cases[0]?.name ?? ''] ?? {});
  if (names.length === 0) return;
  console.log('\nWhere the time of our steps goes, %\n');
  const lines = cases.map(({ name }) => [
    CASE_TITLES[name] ?? name,
    ...names.map((phase) => (100 * (phases[name]?.[phase] ?? 0)).toFixed(1)),
  ]);
  printTable([['', ...names], ...lines]);
  console.log();
}

function printLoad(rounds: Round[]): void {
  const loads = rounds.flatMap(({ ours }) => (ours?.load ? [ours.load] : []));
  const openMs = median(loads.map((load) => load.openMs));
  const twiceMs = median(loads.map((load) => 2 * load.readFileMs));
  const ratio = median(loads.map((load) => load.openMs / (2 * load.readFileMs)));
  console.log(
    `opening the model: ${openMs.toFixed(0)} ms, reading its file twice: ${twiceMs.toFixed(0)} ms (${ratio.toFixed(2)} ×)`,
  );
}

/** What adapters that nobody asks for cost the base. */
function printResident(rounds: Round[]): void {
  for (const name of ['decode-1', 'decode-16']) {
    const ratios = rounds.flatMap(({ ours }) => {
      const [alone, beside] = [ours?.rates[name], ours?.rates[`${name}-resident`]];
      return alone === undefined || beside === undefined ? [] : [beside / alone];
    });
    if (ratios.length > 0)
      console.log(`${name}: the base beside 16 adapters is ${median(ratios).toFixed(3)} × the base alone`);
  }
}

function printAgreement(rounds: Round[], others: string[]): void {
  const mine = rounds[0]?.ours?.firstTokens ?? [];
  for (const name of others) {
    const theirs = rounds[0]?.[name]?.firstTokens ?? [];
    if (mine.length === 0 || theirs.length !== mine.length) continue;
    const same = mine.filter((token, index) => token === theirs[index]).length;
    console.log(`${name}: ${same} of ${mine.length} first tokens are ours`);
  }
}
