import { beforeEach, describe, expect, it } from 'vitest';
import { callAll } from '../../../operator/adapter/publish/laggards.ts';
import type { Pod } from '../../../operator/pods/pod.ts';
import { FakeClock } from '../kube/fake-clock.ts';

interface Suspect {
  pod: Pod;
  suspected: number;
}

function suspect(name: string): Suspect {
  const made = { suspected: 0 } as Suspect;
  const suspectIt = () => {
    made.suspected += 1;
  };
  made.pod = { name, client: { breaker: { suspect: suspectIt } } } as unknown as Pod;
  return made;
}

describe('calls to several pods', () => {
  let clock: FakeClock;
  let caller: { clock: FakeClock; signal: AbortSignal };
  beforeEach(() => {
    clock = new FakeClock();
    caller = { clock, signal: new AbortController().signal };
  });
  const after = (ms: number, result: boolean, signal: AbortSignal) =>
    new Promise<boolean>((resolve) => {
      clock.after(ms, () => resolve(result));
      signal.addEventListener('abort', () => resolve(false));
    });

  it('end 3 s after the first success, and the pod that hung is suspected', async () => {
    const [quick, hung] = [suspect('quick'), suspect('hung')];
    const calls = callAll(
      [quick.pod, hung.pod],
      (pod, signal) => after(pod === quick.pod ? 10 : 60_000, true, signal),
      caller,
    );
    await clock.advance(3_011);
    expect(await calls).toEqual([true, false]);
    expect([quick.suspected, hung.suspected]).toEqual([0, 1]);
  });

  it('wait three times as long as the first success took', async () => {
    const [first, slow] = [suspect('first'), suspect('slow')];
    const calls = callAll(
      [first.pod, slow.pod],
      (pod, signal) => after(pod === first.pod ? 5_000 : 19_000, true, signal),
      caller,
    );
    await clock.advance(19_001);
    expect(await calls).toEqual([true, true]);
    expect(slow.suspected).toBe(0);
  });

  it('are not cut by a failure', async () => {
    const [failed, slow] = [suspect('failed'), suspect('slow')];
    const calls = callAll(
      [failed.pod, slow.pod],
      (pod, signal) => after(pod === failed.pod ? 1 : 30_000, pod === slow.pod, signal),
      caller,
    );
    await clock.advance(30_001);
    expect(await calls).toEqual([false, true]);
    expect(clock.timers).toBe(0);
  });
});
