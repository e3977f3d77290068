import type { Logger } from 'pino';
import { afterEach } from 'vitest';
import type { FailureCode, GenerateRequest } from '../../../native/types.ts';
import { createLog } from '../../../server/contract/log.ts';
import { NativeEngine } from '../../../server/engine/native.ts';
import { StepWatch } from '../../../server/engine/step-watch.ts';
import { ByteBudget } from '../../../server/openai/byte-budget.ts';
import { Gate } from '../../../server/openai/gate.ts';
import type { AdapterLookup, NotReady, Serving } from '../../../server/openai/serving.ts';
import { buildServingApp } from '../../../server/openai/serving-app.ts';
import { createMetrics } from '../../../server/telemetry/metrics.ts';
import { ChatTemplate } from '../../../server/text/chat-template.ts';
import { Encoder } from '../../../server/text/encoder.ts';
import { Tokenizer } from '../../../server/text/tokenizer.ts';
import { PARROT } from '../../support/parrot-server.ts';
import { type Scripted, type ScriptedEngine, scriptedEngine } from '../../support/scripted-engine.ts';

export const tokenizer = await Tokenizer.load(PARROT);
export const template = await ChatTemplate.load(PARROT);
export const REVISION = `sha256:${'a'.repeat(64)}`;

export const accepted: Extract<Scripted, { type: 'accepted' }> = {
  type: 'accepted',
  revision: REVISION,
  step: 1,
};
export const token: Scripted = { type: 'token', token: 77, logprobs: null };
export const failed = (code: FailureCode): Scripted => ({ type: 'failed', code, message: 'secret detail' });

interface Setup {
  script: (request: GenerateRequest, attempt: number) => Scripted[];
  waitForSlot?: AdapterLookup['waitForSlot'];
  notReady?: () => NotReady;
  encoder?: Pick<Encoder, 'forRequest'>;
  log?: Logger;
  budget?: ByteBudget;
  watch?: StepWatch;
  progress?: () => { step: number; running: number };
  connectionsMax?: number;
}

/** What a serving API over this engine and these adapters stands on. */
export function standing(engine: NativeEngine, adapters: AdapterLookup): Serving {
  return {
    model: { name: 'parrot', createdAt: 0, maxTokens: 2048, vocabSize: 1024, eosTokenIds: [4] },
    engine,
    adapters,
    tokenizer,
    encoder: new Encoder(tokenizer, PARROT),
    template,
    gate: new Gate(8),
    metrics: createMetrics({
      baseModel: 'parrot',
      blockTokens: 16,
      kvBlocks: 128,
      pages: 1,
      snapshot: () => engine.snapshot(),
      hostTier: { bytesMax: 0, usedBytes: 0 },
      residency: () => ({ slots: 1, resident: [], host: [] }),
      current: () => [],
    }),
    budget: new ByteBudget(1 << 30),
    notReady: () => null,
    log: createLog('silent'),
  };
}

const apps: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const app of apps.splice(0)) await app.close();
});

/** The serving API over an engine that says what a test tells it to; closed after each test. */
export async function serve({
  script,
  waitForSlot = async () => undefined,
  notReady = () => null,
  encoder = new Encoder(tokenizer, PARROT),
  log = createLog('silent'),
  budget = new ByteBudget(1 << 30),
  watch = new StepWatch(0),
  progress,
  connectionsMax = 64,
}: Setup) {
  let scripted: ScriptedEngine | undefined;
  const engine = new NativeEngine((onEvents) => {
    scripted = scriptedEngine(onEvents, script);
    const { engine } = scripted;
    return { ...engine, snapshot: () => ({ ...engine.snapshot(), ...progress?.() }) };
  }, watch);
  const { submitted, cancelled, emit } = scripted as unknown as ScriptedEngine;
  const adapters: AdapterLookup = {
    resolve: (name) => (name === 'parrot' ? { kind: 'base' } : { kind: 'adapter', name }),
    pin: () => null,
    resolveExpected: () => ({ kind: 'unmet', actual: null, mayCome: false }),
    nextChange: async () => undefined,
    describe: (name, revision) => ({ name, revision, step: 3 }),
    enter: async () => undefined,
    waitForSlot,
    models: () => [],
  };
  const app = buildServingApp(
    { ...standing(engine, adapters), encoder, budget, notReady, log },
    connectionsMax,
  );
  apps.push(app);
  const url = await app.listen({ host: '127.0.0.1', port: 0 });
  const post = (body: object, { path = '/v1/completions', signal = null as AbortSignal | null } = {}) =>
    fetch(`${url}${path}`, {
      method: 'POST',
      signal,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'sql', prompt: [7], ...body }),
    });
  return { app, url, post, submitted, cancelled, emit };
}
