import type { Engine } from '../../native/types.ts';

export interface EngineTimings {
  staged(seconds: number): void;
  swapped(seconds: number): void;
}

/** The same engine; how long stages and activations take is reported. */
export function timedEngine(engine: Engine, timings: () => EngineTimings): Engine {
  return {
    info: engine.info,
    stage: (...args) => timed(engine.stage(...args), (seconds) => timings().staged(seconds)),
    activate: (...args) => timed(engine.activate(...args), (seconds) => timings().swapped(seconds)),
    deactivate: (...args) => engine.deactivate(...args),
    release: (...args) => engine.release(...args),
    submit: (request) => engine.submit(request),
    cancel: (id) => engine.cancel(id),
    snapshot: () => engine.snapshot(),
    close: () => engine.close(),
  };
}

async function timed<T>(work: Promise<T>, report: (seconds: number) => void): Promise<T> {
  const startedMs = performance.now();
  const result = await work;
  report((performance.now() - startedMs) / 1000);
  return result;
}
