import { expect, it } from 'vitest';
import { silentLog } from '../../operator/kube/log.ts';
import { type Machine, run } from '../../operator/run.ts';

const untilAborted = (signal: AbortSignal) =>
  new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));

/** A process that fills its caches when `synced` says so, and whose parts write down what they do. */
function machineThat(
  done: string[],
  { synced, flush }: { synced: PromiseWithResolvers<void>; flush: () => Promise<void> },
): Machine {
  const list = { list: () => [] };
  return {
    log: silentLog,
    flush,
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
      run: async (signal: AbortSignal) => {
        done.push('elected');
        await untilAborted(signal);
        done.push('gave the lease back');
      },
      whenLeading: () => new Promise<never>(() => undefined),
    },
    fleet: { close: async () => undefined },
  } as unknown as Machine;
}

const fail = (error: unknown) => {
  throw error;
};
const turn = () => new Promise((resolve) => setImmediate(resolve));

it('gives the lease back though what is pending cannot be written', async () => {
  const synced = Promise.withResolvers<void>();
  const done: string[] = [];
  const stop = run(machineThat(done, { synced, flush: () => new Promise(() => undefined) }), fail);
  synced.resolve();
  await turn();
  await stop();
  expect(done).toEqual(['elected', 'gave the lease back']);
});

it('reaches for the lease only when the caches are filled, and stops all the same before', async () => {
  const synced = Promise.withResolvers<void>();
  const done: string[] = [];
  const flush = async () => void done.push('flushed');
  const stop = run(machineThat(done, { synced, flush }), fail);
  await turn();
  expect(done).toEqual([]);
  await stop();
  expect(done).toEqual(['flushed']);
});
