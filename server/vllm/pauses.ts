import { setTimeout as delay } from 'node:timers/promises';
import { badRequest } from '../openai/errors.ts';
import type { Gate } from '../openai/gate.ts';

/** Cancelled requests end with the engine's step. */
const LOOK_MS = 5;
const MODES = ['keep', 'wait', 'abort'] as const;
export type PauseMode = (typeof MODES)[number];

/** What a pause asks for. A swap needs none, so without a mode nothing is held, as with `keep`. */
export function readMode({ mode, wait_for_inflight_requests: waits }: Record<string, unknown>): PauseMode {
  if (mode === undefined) return /^(?:true|1|yes|on)$/i.test(String(waits)) ? 'wait' : 'keep';
  const found = MODES.find((known) => known === mode);
  if (found !== undefined) return found;
  const received = JSON.stringify(String(mode).slice(0, 64));
  throw badRequest(`Expected ${MODES.join(', ')} for mode but received ${received}`, 'mode');
}

/** Pauses of one server. */
export class Pauses {
  readonly #gate: Gate;
  readonly #isIdle: () => boolean;
  #isPaused = false;

  /** `isIdle`: what has left the gate runs no more. */
  constructor(gate: Gate, isIdle: () => boolean) {
    this.#gate = gate;
    this.#isIdle = isIdle;
  }

  /** What was asked for last. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Resolves, where requests are held, once none runs any more. */
  async pause(mode: PauseMode, signal: AbortSignal): Promise<void> {
    this.#isPaused = true;
    if (mode === 'keep') return;
    this.#gate.close();
    if (mode === 'abort') this.#gate.cutAll();
    await this.#gate.empty(signal);
    while (!this.#isIdle()) await delay(LOOK_MS, undefined, { signal });
  }

  resume(): void {
    this.#isPaused = false;
    this.#gate.open();
  }
}
