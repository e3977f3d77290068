/** What an engine of another project says of itself. */
export interface EngineFacts {
  /** What it calls its base model. */
  baseName: string;
  /** Adapters that it holds at once without dropping one; null where it does not tell. */
  adaptersMax: number | null;
  /** Null where it does not tell. */
  rankMax: number | null;
  /** Longest sequence in tokens; null where it does not tell. */
  contextTokens: number | null;
  /** Whether it scales each module as rank_pattern and alpha_pattern say, and not all alike. */
  scalesByModule: boolean;
  /** Whether it needs of q, k and v, and of gate and up, all where it gets one. */
  fusesProjections: boolean;
}

/** What of an engine can change behind our back. */
export interface EngineSight {
  /** New with every start of its process. */
  process: string;
  /** Names of the adapters that it serves. */
  adapters: Set<string>;
}

export interface AskedFor {
  model: string;
  lora_path?: string;
}

/**
 * The routes by which an engine of another project takes adapters: what vllm.ts and sglang.ts are. All reject with
 * EngineSilent where it does not answer, and with EngineRefusal where it says no.
 */
export interface EngineLoader {
  readonly kind: 'vllm' | 'sglang';
  /** What a request's body says to run under the adapter of that name in the engine. */
  asksFor(name: string, baseName: string): AskedFor;
  /** The adapter of a request whose `model` does not name it, where the engine's clients know another way; as they wrote it. */
  namedIn(body: Readonly<Record<string, unknown>>, baseName: string): unknown;
  /** Whether an answer says that it does not have the adapter that it was asked for. */
  lacksAdapter(status: number, text: string): boolean;
  facts(signal: AbortSignal): Promise<EngineFacts>;
  look(signal: AbortSignal): Promise<EngineSight>;
  /** `path` is a PEFT folder as the engine sees it. */
  load(name: string, path: string, signal: AbortSignal): Promise<void>;
  /** A name that is not there is gone already. */
  unload(name: string, signal: AbortSignal): Promise<void>;
  /** Has it compute one token under the adapter. */
  probe(name: string, signal: AbortSignal): Promise<void>;
}

export class EngineSilent extends Error {
  override readonly name = 'EngineSilent';
}

export class EngineRefusal extends Error {
  override readonly name = 'EngineRefusal';
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}
