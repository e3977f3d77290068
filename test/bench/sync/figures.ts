import type { Call, Trainer } from './trainer.ts';

/** Milliseconds by what they went into; `whole` is all of them. */
export type Answer = Record<string, number>;

const WARM_ROUNDS = 3;

const STAGE_WORDS: Record<string, string> = {
  receiveMs: 'send, receive and hash',
  checkMs: 'check',
  packMs: 'pack',
  rest: 'publish, and the rest',
};

/** What each call took, a turn of each after the other. */
export async function interleaved(
  trainer: Trainer,
  calls: Record<string, Call>,
  rounds: number,
): Promise<Record<string, Answer[]>> {
  const answers: Record<string, Answer[]> = {};
  for (let round = -WARM_ROUNDS; round < rounds; round += 1) {
    for (const [name, call] of Object.entries(calls)) {
      const answer = await trainer.ask(call);
      if (round >= 0) answers[name] = [...(answers[name] ?? []), answer];
    }
  }
  return answers;
}

/** Of each stage. */
export function medianOf(answers: Answer[]): Answer {
  const median = (name: string) => {
    const sorted = answers.map((answer) => answer[name] as number).toSorted((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)] as number;
  };
  return Object.fromEntries(Object.keys(answers[0] ?? {}).map((name) => [name, median(name)]));
}

/** What no stage counts: to connect, to publish, and for the answer to come. */
export function withRest({ whole = Number.NaN, totalMs, ...stages }: Answer): Answer {
  const counted = Object.values(stages).reduce((sum, ms) => sum + ms, 0);
  return counted === 0 ? { whole } : { whole, ...stages, rest: whole - counted };
}

export function row(name: string, { whole = Number.NaN, ...stages }: Answer, bareMs: number): void {
  const parts = Object.entries(stages).map(
    ([stage, ms]) => `${STAGE_WORDS[stage] ?? stage} ${ms.toFixed(1)}`,
  );
  const ratio = (whole / bareMs).toFixed(2);
  console.log(
    `  ${name.padEnd(26)} ${whole.toFixed(1).padStart(7)} ms ${ratio.padStart(6)} ×  ${parts.join(', ')}`,
  );
}
