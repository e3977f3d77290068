import { expect, it } from 'vitest';
import { silentLog } from '../../operator/kube/log.ts';
import { type Machine, run } from '../../operator/run.ts';

it('reaches for the lease only when the caches are filled, and stops all the same before', async () => {
  const synced = Promise.withResolvers<void>();
  const done: string[] = [];
  const untilAborted = (signal: AbortSignal) =>
    new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  const list = { list: () => [] };
  const machine = {
    log: silentLog,
    flush: async () => void done.push('flushed'),
    watches: {
      adapters: list,
      pools: list,
      pods: list,
      run: async (signal: AbortSignal) => {
        await untilAborted(signal);
        synced.reject(signal.reason);
      },
      whenSynced: () => synced.promise,
    },
    elector: {
      run: async () => void done.push('elected'),
      whenLeading: () => new Promise<never>(() => undefined),
    },
    fleet: { close: async () => undefined },
  } as unknown as Machine;
  const stop = run(machine, (error) => {
    throw error;
  });
  await new Promise((resolve) => setImmediate(resolve));
  expect(done).toEqual([]);
  await stop();
  expect(done).toEqual(['flushed']);
});
