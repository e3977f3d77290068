import { setTimeout as sleep } from 'node:timers/promises';
import { type AdapterFiles, push } from './client.ts';

const PAUSE_MS = 20;
/** A trainer gives a call up that takes longer than any answer should. */
const CALL_MS = 20_000;

export interface TrainerOptions {
  token: string;
  contents: readonly AdapterFiles[];
  hasSteps: boolean;
  /** Where the next push goes; each may be another operator. */
  url: () => string;
}

/** Pushes one content after the other to one adapter, for ever, and remembers what it was told. */
export class Trainer {
  readonly #options: TrainerOptions;
  #going = false;
  #pushing: Promise<void> = Promise.resolve();
  #step = 0;
  #acknowledgedAtMs: number[] = [];
  acknowledged = 0;
  /** Longest call of all that were answered or given up. */
  slowestMs = 0;
  /** Revisions that pods may serve: the last acknowledged one, and those after it whose end is not known. */
  allowed = new Set<string>();
  readonly #revisions = new Map<AdapterFiles, string>();

  constructor(options: TrainerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#going = true;
    this.#pushing = this.#run();
  }

  async stop(): Promise<void> {
    this.#going = false;
    await this.#pushing;
  }

  /** Of the first push begun after that moment, that was acknowledged; null where there was none yet. */
  firstAfter(ms: number): number | null {
    return this.#acknowledgedAtMs.find((atMs) => atMs > ms) ?? null;
  }

  async #run(): Promise<void> {
    const { contents } = this.#options;
    for (let turn = 0; this.#going; turn += 1) {
      // A content comes back two and three pushes later, so that it is always one that was there before.
      await this.#push(contents[(turn + (turn >> 2)) % contents.length] as AdapterFiles);
      await sleep(PAUSE_MS);
    }
  }

  async #push(files: AdapterFiles): Promise<void> {
    const { token, url, hasSteps } = this.#options;
    this.#step += 1;
    const beganMs = performance.now();
    const call = push(url(), files, { token, ...(hasSteps && { step: this.#step }) });
    const outcome = await Promise.race([call.then(answerOf, () => null), sleep(CALL_MS).then(() => null)]);
    this.slowestMs = Math.max(this.slowestMs, performance.now() - beganMs);
    if (outcome === 'refused') return;
    const known = this.#revisions.get(files);
    if (outcome === null) {
      if (known !== undefined) this.allowed.add(known);
      return;
    }
    this.#revisions.set(files, outcome);
    this.allowed = new Set([outcome]);
    this.acknowledged += 1;
    this.#acknowledgedAtMs.push(beganMs);
    if (this.#acknowledgedAtMs.length > 10_000) this.#acknowledgedAtMs.shift();
  }
}

/** The revision that was acknowledged; null: nobody knows whether it was taken. */
async function answerOf(response: Response): Promise<string | 'refused' | null> {
  const body = (await response.json()) as { revision?: string };
  if (response.status === 200 || response.status === 202) return body.revision ?? null;
  return response.status < 500 ? 'refused' : null;
}
