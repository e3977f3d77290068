import type { Logger } from 'pino';
import type { Lookup } from '../adapters/lookup.ts';
import type { TokenEngine } from '../engine/port.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { ChatTemplate } from '../text/chat-template.ts';
import type { Encoder } from '../text/encoder.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { ByteBudget } from './byte-budget.ts';
import type { Gate } from './gate.ts';

/** What the serving API asks of the registry of adapters. */
export type AdapterLookup = Pick<
  Lookup,
  'resolve' | 'resolveExpected' | 'pin' | 'describe' | 'enter' | 'waitForSlot' | 'nextChange' | 'models'
>;

export interface ServedModel {
  name: string;
  /** Unix seconds. */
  createdAt: number;
  /** Longest sequence in tokens, prompt and answer together. */
  maxTokens: number;
  vocabSize: number;
  eosTokenIds: readonly number[];
  /** For what a request does not name, by the names that requests have for it. */
  requestDefaults?: Readonly<Record<string, number | string>>;
}

/** Null: ready. */
export type NotReady = { code: 'not_seeded' | 'engine_failed' | 'shutting_down'; message: string } | null;

/** All that the serving API stands on. */
export interface Serving {
  model: ServedModel;
  engine: TokenEngine;
  adapters: AdapterLookup;
  tokenizer: Tokenizer;
  encoder: Pick<Encoder, 'forRequest'>;
  template: ChatTemplate | null;
  metrics: Metrics;
  budget: ByteBudget;
  gate: Gate;
  notReady(): NotReady;
  log: Logger;
}
