import type { Logger } from 'pino';
import type { Door } from '../engine/door.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { ChatTemplate } from '../text/chat-template.ts';
import type { Encoder } from '../text/encoder.ts';
import type { Tokenizer } from '../text/tokenizer.ts';

export type Resolved =
  | { kind: 'base' }
  | { kind: 'adapter'; name: string }
  | { kind: 'revision'; name: string; digest: string; step: number | null };

/** What the serving API asks of the registry of adapters. */
export interface AdapterLookup {
  /** Throws `adapter_not_found` or `revision_not_found`. */
  resolve(model: string): Resolved;
  describe(name: string, digest: string): { name: string; revision: string; step: number | null };
  /** Brings the current revision (null) or the named one into a slot; throws `no_capacity`. */
  ensureResident(name: string, digest: string | null): Promise<void>;
  models(): { name: string; revision: string; step: number | null; createdAt: number }[];
}

export interface BaseModel {
  name: string;
  /** Unix seconds. */
  createdAt: number;
  /** Longest sequence in tokens, prompt and answer together. */
  maxTokens: number;
  vocabSize: number;
  eosTokenIds: readonly number[];
}

/** Null: ready. */
export type NotReady = { code: string; message: string } | null;

/** All that the serving API stands on. */
export interface Serving {
  model: BaseModel;
  door: Pick<Door, 'generate' | 'failed'>;
  adapters: AdapterLookup;
  tokenizer: Tokenizer;
  encoder: Encoder;
  template: ChatTemplate | null;
  metrics: Metrics;
  notReady(): NotReady;
  log: Logger;
}
