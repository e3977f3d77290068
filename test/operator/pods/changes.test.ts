import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { systemClock } from '../../../operator/kube/clock.ts';
import { applyChanges } from '../../../operator/pods/changes.ts';
import { PodClient } from '../../../operator/pods/client.ts';
import { openDispatcher } from '../../../operator/pods/dispatcher.ts';
import { serverEvents } from '../../../operator/pods/events.ts';
import { TokenSource } from '../../../operator/pods/token.ts';
import type { Registry } from '../../../server/adapters/registry.ts';
import { StateLog } from '../../../server/adapters/state-log.ts';
import { watchState } from '../../../server/admin/watch.ts';
import { PodChanges, PodState } from '../../../server/contract/adapter-api.ts';
import { goodAdapter } from '../../support/adapter-files.ts';
import { eventually } from '../../support/eventually.ts';
import { POD_TOKEN, ScriptedPod } from '../../support/pod/scripted-pod.ts';
import { adapterState, digest, podState } from '../../support/pod/state.ts';

/** A pod whose state is what the test says, and a log that remembers few names. */
class Script {
  readonly #adapters = new Map<string, string>();
  readonly #listeners = new Set<() => void>();
  readonly #touched: ((name: string) => void)[] = [];
  /** Names that were described since the test last forgot them. */
  described: string[] = [];
  boot = 'a';
  epoch = 0;
  log = this.#newLog();

  get registry(): Registry {
    const subscribe = (listener: () => void) => {
      this.#listeners.add(listener);
      return () => this.#listeners.delete(listener);
    };
    return { subscribe } as unknown as Registry;
  }

  get state(): PodState {
    const adapters = [...this.#adapters].map(([name, hex]) => adapterState(name, digest(hex)));
    return { ...podState({ adapters }), bootId: this.boot, epoch: this.epoch };
  }

  change(name: string, hex: string | null): void {
    if (hex === null) this.#adapters.delete(name);
    else this.#adapters.set(name, hex);
    for (const touch of this.#touched) touch(name);
    this.epoch += 1;
    for (const listener of this.#listeners) listener();
  }

  restart(): void {
    this.boot += 'a';
    this.log = this.#newLog();
  }

  #newLog(): StateLog {
    const report = {
      look: () => this.state,
      names: () => this.#adapters.keys(),
      adapter: (name: string) => {
        this.described.push(name);
        const hex = this.#adapters.get(name);
        return hex === undefined ? null : adapterState(name, digest(hex));
      },
      onTouched: (listener: (name: string) => void) => void this.#touched.push(listener),
    };
    return new StateLog({ report, namesMax: 3 });
  }
}

/** What a watch wrote, and what its reader holds after it. */
class Reader extends EventEmitter {
  state: PodState | null = null;
  lastId: string | null = null;
  readonly types: string[] = [];
  takes = true;
  #text = '';

  watch({ registry, log }: Script): void {
    this.removeAllListeners();
    this.#text = '';
    const wanted = { takesChanges: true, lastId: this.lastId };
    watchState({ registry, log }, this as unknown as ServerResponse, wanted);
  }

  writeHead(): void {}

  write(text: string): boolean {
    this.#text += text;
    return this.takes;
  }

  /** The connection ends, after all or before the last of what was written has come. */
  async cut(lost: boolean): Promise<void> {
    this.emit('close');
    const text = lost ? this.#text.slice(0, this.#text.lastIndexOf('data:') + 9) : this.#text;
    for await (const { type, id, data } of serverEvents(inOne(text))) {
      this.types.push(type);
      const body = JSON.parse(data);
      this.state =
        type === 'changes'
          ? applyChanges(this.state as PodState, PodChanges.parse(body))
          : PodState.parse(body);
      this.lastId = id;
    }
  }
}

async function* inOne(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text);
}

const sorted = (state: PodState | null) =>
  state && { ...state, adapters: state.adapters.toSorted((a, b) => (a.name < b.name ? -1 : 1)) };

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('change' as const),
      name: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'),
      hex: fc.constantFrom('1', '2', null),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom('wait' as const, 'fill' as const, 'drain' as const) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('cut' as const, 'lose' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const) }) },
);

describe('the changes of a pod', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('add up to its state, wherever the watch is cut and whatever was forgotten meanwhile', async () => {
    const seen = new Set<string>();
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const pod = new Script();
        const reader = new Reader();
        reader.watch(pod);
        for (const item of steps) {
          if (item.do === 'change') pod.change(item.name, item.hex);
          if (item.do === 'wait') vi.advanceTimersByTime(100);
          if (item.do === 'fill') reader.takes = false;
          if (item.do === 'drain') {
            reader.takes = true;
            reader.emit('drain');
          }
          if (item.do === 'restart') pod.restart();
          if (item.do !== 'cut' && item.do !== 'lose' && item.do !== 'restart') continue;
          await reader.cut(item.do === 'lose');
          if (reader.lastId === null) expect(reader.state).toBeNull();
          reader.watch(pod);
        }
        reader.takes = true;
        reader.emit('drain');
        vi.advanceTimersByTime(100);
        await reader.cut(false);
        for (const type of reader.types) seen.add(type);
        expect(sorted(reader.state)).toEqual(sorted(pod.state));
      }),
      { numRuns: 300 },
    );
    expect([...seen].sort()).toEqual(['', 'changes']);
  });

  it('are few where little changed, and the whole state where that was forgotten', () => {
    const pod = new Script();
    for (const name of ['a', 'b', 'c']) pod.change(name, '1');
    const moment = pod.log.sequence;
    pod.change('b', '2');
    pod.log.invalidate();
    expect(pod.log.since(moment)).toMatchObject({ adapters: [{ name: 'b' }], removed: [] });
    for (const name of ['d', 'e', 'f']) {
      pod.change(name, '1');
      pod.log.invalidate();
      expect(pod.log.sequence).toBeGreaterThan(moment);
    }
    expect(pod.log.since(moment)).toBeNull();
  });

  it('cost a look at the names that they touch, however many others there are', () => {
    const pod = new Script();
    for (let index = 0; index < 100; index++) pod.change(`other-${index}`, '1');
    pod.change('a', '1');
    const before = pod.log.sequence;
    pod.described = [];
    pod.change('a', '2');
    pod.log.invalidate();
    expect(pod.log.since(before)?.adapters.map(({ name }) => name)).toEqual(['a']);
    expect(pod.described).toEqual(['a']);
  });

  it('are none where a name was touched and is as it was', () => {
    const pod = new Script();
    pod.change('a', '1');
    const before = pod.log.sequence;
    pod.change('a', '2');
    pod.change('a', '1');
    pod.epoch -= 2;
    pod.log.invalidate();
    expect(pod.log.sequence).toBe(before);
  });
});

describe('a watch of a pod', () => {
  it('goes on where the one before it was', async () => {
    const pod = await ScriptedPod.start({ host: '127.0.8.1' });
    const dispatcher = openDispatcher();
    const life = new AbortController();
    try {
      const token = new TokenSource(async () => ({ token: POD_TOKEN, previous: null }), systemClock);
      const client = new PodClient({ adminUrl: pod.url, dispatcher, token, life: life.signal });
      const firstOf = async () => {
        for await (const state of client.watch(life.signal)) return state;
        throw new Error('no state');
      };
      const { tensors, config } = goodAdapter();
      const options = {
        config: JSON.parse(config.toString()),
        step: null,
        size: tensors.length,
        signal: life.signal,
      };
      const fence = { term: 1, sequence: 1 };
      await client.upload('old', tensors, { ...options, fence });
      const before = await firstOf();
      await client.upload('new', tensors, { ...options, fence });
      const after = await firstOf();
      expect(after.adapters.map(({ name }) => name)).toEqual(['old', 'new']);
      // Only changes leave it the object that it was.
      expect(after.adapters[0]).toBe(before.adapters[0]);
      await pod.restart();
      // A connection that was kept open is found to be cut only when it is used.
      const restarted = await eventually('the new process answers', { timeoutMs: 10_000 }, firstOf);
      expect(restarted.adapters).toEqual([]);
    } finally {
      life.abort();
      await dispatcher.destroy();
      await pod.stop();
    }
  });
});
