import { badRequest } from '../openai/errors.ts';

/**
 * A swap needs no pause: running sequences keep their revision, and what a trainer pauses for is done between two
 * steps. So nothing is held, and modes that promise more than `keep` does are refused.
 */
export class Pauses {
  #isPaused = false;

  /** What was asked for last. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  pause({ mode, wait_for_inflight_requests: waits }: Record<string, unknown>): { status: 'paused' } {
    if (mode !== undefined && mode !== 'keep') throw refusal('mode', 'keep', mode);
    if (/^(?:true|1|yes|on)$/i.test(String(waits)))
      throw refusal('wait_for_inflight_requests', 'false', waits);
    this.#isPaused = true;
    return { status: 'paused' };
  }

  resume(): { status: 'resumed' } {
    this.#isPaused = false;
    return { status: 'resumed' };
  }
}

function refusal(field: string, want: string, got: unknown): Error {
  const received = JSON.stringify(String(got).slice(0, 64));
  return badRequest(
    `Expected ${want} for ${field} but received ${received}: requests run on, each to its end on the revision that it began with`,
    field,
  );
}
