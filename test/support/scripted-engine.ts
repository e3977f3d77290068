import type { Engine, EngineEvent, GenerateRequest } from '../../native/types.ts';
import { engineError } from './fake-engine.ts';

/** An event without its id. */
export type Scripted = EngineEvent extends infer E
  ? E extends { id: number }
    ? Omit<E, 'id'>
    : never
  : never;

export interface ScriptedEngine {
  engine: Engine;
  /** Requests so far. */
  submitted: GenerateRequest[];
  cancelled: number[];
  emit(events: EngineEvent[]): void;
}

/** An engine that says what a test tells it to: for faults that a real one does not show on demand. */
export function scriptedEngine(
  onEvents: (events: EngineEvent[]) => void,
  script: (request: GenerateRequest, attempt: number) => Scripted[],
): ScriptedEngine {
  const submitted: GenerateRequest[] = [];
  const cancelled: number[] = [];
  let closing = false;
  const requireOpen = () => {
    if (closing) throw engineError('closing', 'The engine is closed');
  };
  const refuse = async () => {
    requireOpen();
    throw new Error('not scripted');
  };
  const engine: Engine = {
    info: {
      backend: 'reference',
      dtype: 'float32',
      memoryBytes: { weights: 0, kv: 0, pages: 0, activations: 0, graphs: 0 },
      slots: 1,
      pages: 1,
      kvBlocks: 128,
      blockTokens: 16,
    },
    stage: refuse,
    activate: refuse,
    deactivate: refuse,
    release: refuse,
    submit(request) {
      requireOpen();
      submitted.push(request);
      const events = script(request, submitted.length).map(
        (event) => ({ ...event, id: request.id }) as EngineEvent,
      );
      setImmediate(() => onEvents(events));
    },
    cancel(id) {
      requireOpen();
      cancelled.push(id);
    },
    resetPrefixCache() {},
    snapshot() {
      requireOpen();
      return {
        step: 0,
        epoch: 0,
        running: 0,
        waiting: 0,
        kvBlocksUsed: 0,
        pagesUsed: 0,
        slots: [],
        runningAdapters: [],
        waitingAdapters: [],
        promptTokens: 0,
        generatedTokens: 0,
        preemptions: 0,
        prefixTokensQueried: 0,
        prefixTokensHit: 0,
        phasesMs: {},
      };
    },
    close: async () => {
      closing = true;
    },
  };
  return { engine, submitted, cancelled, emit: onEvents };
}
