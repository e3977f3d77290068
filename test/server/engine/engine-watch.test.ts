import { pino } from 'pino';
import { expect, it } from 'vitest';
import { EngineWatch } from '../../../server/engine/engine-watch.ts';
import type { EngineLoader } from '../../../server/engine/loader.ts';

it('an engine that has not been seen yet is away for the reason of the last look', async () => {
  const look = async () => {
    throw new Error('/metrics is 404');
  };
  const watch = new EngineWatch({
    loader: { look } as Partial<EngineLoader> as EngineLoader,
    log: pino({ level: 'silent' }),
    inTurn: (work) => work(),
    restore: async () => undefined,
    tidy: async () => undefined,
  });
  await watch.look();
  watch.close();
  expect(watch.away).toBe('/metrics is 404');
});
