import { describe, expect, it } from 'vitest';
import { createLog } from '../../../server/contract/log.ts';
import type { GenerateRequest } from '../../../server/engine/port.ts';
import { ByteBudget } from '../../../server/openai/byte-budget.ts';
import { withModelDefaults } from '../../../server/openai/defaults.ts';
import { Gate } from '../../../server/openai/gate.ts';
import type { Serving } from '../../../server/openai/serving.ts';
import { buildServingApp } from '../../../server/openai/serving-app.ts';
import { createMetrics } from '../../../server/telemetry/metrics.ts';
import { ChatTemplate } from '../../../server/text/chat-template.ts';
import { Encoder } from '../../../server/text/encoder.ts';
import { Tokenizer } from '../../../server/text/tokenizer.ts';
import { PARROT } from '../../support/parrot-server.ts';

const serving = (requestDefaults?: Record<string, number>) => ({
  model: {
    name: 'base',
    createdAt: 0,
    maxTokens: 1,
    vocabSize: 1,
    eosTokenIds: [],
    ...(requestDefaults === undefined ? {} : { requestDefaults }),
  },
});

it.each<[string, unknown, unknown]>([
  ['takes the place of what a request does not name', { n: 1 }, { n: 1, temperature: 0.7 }],
  ['takes the place of null', { temperature: null }, { temperature: 0.7 }],
  ['gives way to what a request names', { temperature: 0 }, { temperature: 0 }],
  ['leaves other nulls alone', { stop: null }, { stop: null, temperature: 0.7 }],
  ['leaves what is no object to be refused', [1], [1]],
])("a model's default %s", (_what, body, whole) => {
  expect(withModelDefaults(serving({ temperature: 0.7 }), body)).toEqual(whole);
});

it('a model without defaults changes no request', () => {
  expect(withModelDefaults(serving(), { n: 1 })).toEqual({ n: 1 });
});

describe.each(['/v1/completions', '/v1/chat/completions'])('%s', (url) => {
  it("samples with the model's defaults", async () => {
    const seen: GenerateRequest[] = [];
    const app = buildServingApp(await answering(seen));
    const payload = { model: 'base', prompt: 'a', messages: [{ role: 'user', content: 'a' }], top_k: 3 };
    const reply = await app.inject({ method: 'POST', url, payload });
    await app.close();
    expect(reply.statusCode, reply.body).toBe(200);
    expect(seen).toMatchObject([{ temperature: 0.7, topK: 3 }]);
  });
});

async function answering(seen: GenerateRequest[]): Promise<Serving> {
  const tokenizer = await Tokenizer.load(PARROT);
  return {
    ...serving({ temperature: 0.7, top_k: 20 }),
    model: { ...serving({ temperature: 0.7, top_k: 20 }).model, maxTokens: 2048, vocabSize: 1024 },
    engine: {
      failed: null,
      async *generate(request) {
        seen.push(request);
        yield { type: 'accepted', revision: null };
        yield { type: 'finished', reason: 'stop', stopToken: 4, logprobs: null };
      },
    },
    adapters: {
      resolve: () => ({ kind: 'base' }),
      pin: () => null,
      resolveExpected: () => ({ kind: 'base' }),
      nextChange: async () => undefined,
      describe: (name, revision) => ({ name, revision: revision ?? '', step: null }),
      enter: async () => undefined,
      waitForSlot: async () => undefined,
      models: () => [],
    },
    tokenizer,
    encoder: new Encoder(tokenizer, PARROT),
    budget: new ByteBudget(1 << 30),
    gate: new Gate(8),
    template: await ChatTemplate.load(PARROT),
    metrics: createMetrics({
      baseModel: 'base',
      blockTokens: 16,
      kvBlocks: 128,
      pages: 1,
      snapshot: () => ({ step: 0, epoch: 0, pagesUsed: 0, slots: [] }) as never,
      hostTier: { bytesMax: 0, usedBytes: 0 },
      residency: () => ({ slots: 1, resident: [], host: [] }),
      current: () => [],
    }),
    notReady: () => null,
    log: createLog('silent'),
  };
}
