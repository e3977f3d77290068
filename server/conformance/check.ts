import type { Bench } from './bench.ts';

/** A server that fails a SHOULD still conforms. */
export type Level = 'MUST' | 'SHOULD';

export interface Check {
  name: string;
  level: Level;
  /** What the contract asks of a server. */
  sentence: string;
  /** What the command line must bring for it. */
  needs: 'serving' | 'token' | null;
  run(bench: Bench): Promise<void>;
}

type Run = Check['run'];

export function must(name: string, sentence: string, run: Run): Check {
  return { name, level: 'MUST', sentence, needs: null, run };
}

export function should(name: string, sentence: string, run: Run): Check {
  return { name, level: 'SHOULD', sentence, needs: null, run };
}

/** Checks that the command line must bring something for. */
export function needing(needs: 'serving' | 'token', checks: Check[]): Check[] {
  return checks.map((check) => ({ ...check, needs }));
}
