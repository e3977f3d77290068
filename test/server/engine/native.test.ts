import { describe, expect, it } from 'vitest';
import { type EngineTimings, NativeEngine } from '../../../server/engine/native.ts';
import type { FailureCode, GenerateRequest, RequestEvent } from '../../../server/engine/port.ts';
import { GREEDY } from '../../native/support.ts';
import { engineError, FakeEngine } from '../../support/fake-engine.ts';
import { type Scripted, type ScriptedEngine, scriptedEngine } from '../../support/scripted-engine.ts';

const REQUEST: GenerateRequest = { ...GREEDY, prompt: [1], maxTokens: 4, stopTokens: [] };
const accepted: Scripted = { type: 'accepted', revision: null, step: 1 };
const token = (id: number): Scripted => ({ type: 'token', token: id, logprobs: null });
const finished: Scripted = { type: 'finished', reason: 'length', stopToken: null, logprobs: null };
const failed = (code: Exclude<FailureCode, 'engine_away'>): Scripted => ({
  type: 'failed',
  code,
  message: code,
});

function open(script: (request: GenerateRequest) => Scripted[]): {
  engine: NativeEngine;
  scripted: ScriptedEngine;
} {
  let scripted: ScriptedEngine | undefined;
  const engine = new NativeEngine((onEvents) => {
    scripted = scriptedEngine(onEvents, script);
    return scripted.engine;
  });
  return { engine, scripted: scripted as unknown as ScriptedEngine };
}

async function typesOf(events: AsyncIterable<RequestEvent>): Promise<string[]> {
  const types: string[] = [];
  for await (const event of events) types.push(event.type === 'token' ? String(event.token) : event.type);
  return types;
}

/** By the first token of the prompt; the last two wait for their reader to leave. */
const [LEAVES, READS_NO_MORE] = ['4', '5'];
const ENDS: Record<string, Scripted[]> = {
  1: [finished],
  2: [failed('non_finite')],
  3: [{ type: 'finished', reason: 'cancelled', stopToken: null, logprobs: null }],
  [LEAVES]: [],
  [READS_NO_MORE]: [],
};

const DEAF: EngineTimings = {
  staged() {},
  evicted() {},
  swapped() {},
  betweenTokens() {},
  sequenceEnded() {},
  sequenceFailed() {},
};

const never = () => new AbortController().signal;

describe('the native engine', () => {
  it('brings each event to the request that waits for it', async () => {
    const { engine } = open(({ prompt: [first = 0] }) => [
      accepted,
      token(first),
      token(first + 1),
      finished,
    ]);
    const runs = [10, 20, 30].map((first) =>
      typesOf(engine.generate({ ...REQUEST, prompt: [first] }, never())),
    );
    expect(await Promise.all(runs)).toEqual([
      ['accepted', '10', '11', 'finished'],
      ['accepted', '20', '21', 'finished'],
      ['accepted', '30', '31', 'finished'],
    ]);
    expect(engine.live).toBe(0);
  });

  it('ends with a failure', async () => {
    const { engine, scripted } = open(() => [failed('queue_full')]);
    expect(await typesOf(engine.generate(REQUEST, never()))).toEqual(['failed']);
    expect(engine.live).toBe(0);
    expect(scripted.cancelled).toEqual([]);
  });

  it('submits nothing for a request that is aborted already', async () => {
    const { engine, scripted } = open(() => [accepted]);
    await expect(typesOf(engine.generate(REQUEST, AbortSignal.abort()))).rejects.toThrow();
    expect(scripted.submitted).toEqual([]);
  });

  it('cancels where the reader leaves, and lets the last event pass', async () => {
    const { engine, scripted } = open(() => [accepted, token(1), token(2)]);
    for await (const event of engine.generate(REQUEST, never())) if (event.type === 'token') break;
    expect(scripted.cancelled).toEqual([1]);
    scripted.emit([{ id: 1, type: 'finished', reason: 'cancelled', stopToken: null, logprobs: null }]);
    expect(engine.live).toBe(0);
  });

  it('cancels on abort and ends with what the engine says', async () => {
    const { engine, scripted } = open(() => [accepted]);
    const controller = new AbortController();
    const run = typesOf(engine.generate(REQUEST, controller.signal));
    await new Promise(setImmediate);
    controller.abort();
    expect(scripted.cancelled).toEqual([1]);
    scripted.emit([{ id: 1, type: 'finished', reason: 'cancelled', stopToken: null, logprobs: null }]);
    expect(await run).toEqual(['accepted', 'finished']);
  });

  it('forgets a request whose reader never comes back', async () => {
    const { engine } = open(() => [accepted, finished]);
    await engine.generate(REQUEST, never()).next();
    expect(engine.live).toBe(0);
  });

  it('leaves nothing behind where the engine refuses the request itself', async () => {
    const { engine } = open(() => {
      throw Object.assign(new Error('prompt'), { code: 'invalid_argument' });
    });
    await expect(engine.generate(REQUEST, never()).next()).rejects.toMatchObject({
      code: 'invalid_argument',
    });
    expect(engine.live).toBe(0);
  });

  it('lets readers leave while the engine closes, which ends their requests itself', async () => {
    const { engine, scripted } = open(() => [accepted]);
    const controller = new AbortController();
    const run = typesOf(engine.generate(REQUEST, controller.signal));
    const left = engine.generate(REQUEST, never());
    await left.next();
    const closed = engine.close();
    expect(() => controller.abort()).not.toThrow();
    await left.return(undefined);
    scripted.emit([{ id: 1, type: 'failed', code: 'closing', message: '' }]);
    expect(await run).toEqual(['accepted', 'failed']);
    await closed;
  });

  it('ends at once what is asked of an engine that closes, and says what it was', async () => {
    const { engine } = open(() => [accepted]);
    const before = engine.snapshot();
    const closed = engine.close();
    expect(await engine.generate(REQUEST, never()).next()).toMatchObject({
      value: { type: 'failed', code: 'closing' },
    });
    expect(engine.snapshot()).toEqual(before);
    await expect(engine.deactivate('sql')).rejects.toMatchObject({ code: 'shutting_down' });
    await expect(engine.release('sha256:aa')).rejects.toMatchObject({ code: 'shutting_down' });
    await closed;
  });

  it('says of no lease once it closes, for whose end somebody may wait', async () => {
    const { engine, scripted } = open(() => []);
    const slot = { slot: 0, revision: 'sha256:aa', state: 'ready' as const, leases: 2, pages: 1 };
    const busy = { ...engine.snapshot(), running: 2, slots: [slot] };
    scripted.engine.snapshot = () => busy;
    await engine.close();
    expect(engine.snapshot()).toEqual({ ...busy, running: 0, slots: [{ ...slot, leases: 0 }] });
  });

  it('tells who listens which revisions are free', () => {
    const { engine, scripted } = open(() => []);
    const freed: string[] = [];
    engine.onFreed((digest) => freed.push(digest));
    scripted.emit([{ id: 0, type: 'freed', revision: 'sha256:aa' }]);
    expect(freed).toEqual(['sha256:aa']);
  });

  it('remembers that the engine failed', async () => {
    const { engine } = open(() => [failed('engine_failed')]);
    expect(engine.failed).toBeNull();
    await typesOf(engine.generate(REQUEST, never()));
    expect(engine.failed).toBe('engine_failed');
  });

  it('tells how sequences end, once each', async () => {
    const { engine, scripted } = open(({ prompt }) => [accepted, token(1), ...(ENDS[prompt[0] ?? 0] ?? [])]);
    const told: string[] = [];
    engine.onTimed({
      ...DEAF,
      sequenceEnded: (how) => told.push(how),
      sequenceFailed: (code) => told.push(code),
    });
    for (const end of Object.keys(ENDS)) {
      const controller = new AbortController();
      for await (const { type } of engine.generate(
        { ...REQUEST, prompt: [Number(end)] },
        controller.signal,
      )) {
        if (type === 'token' && end === LEAVES) controller.abort();
        if (type === 'token' && (end === LEAVES || end === READS_NO_MORE)) break;
      }
    }
    scripted.emit([{ id: 4, type: 'finished', reason: 'cancelled', stopToken: null, logprobs: null }]);
    expect(told).toEqual(['length', 'non_finite', 'abort', 'abort', 'stop']);
  });

  it('tells the time between the tokens of one sequence', async () => {
    const { engine } = open(() => [accepted, token(1), token(2), token(3), finished]);
    let between = 0;
    engine.onTimed({ ...DEAF, betweenTokens: () => (between += 1) });
    await Promise.all([
      typesOf(engine.generate(REQUEST, never())),
      typesOf(engine.generate(REQUEST, never())),
    ]);
    expect(between).toBe(4);
  });

  it('tells the time of a stage that packs, and who gave up a slot, but not that of a resident one', async () => {
    const fake = new FakeEngine(1);
    const engine = new NativeEngine(fake.start);
    const told: unknown[] = [];
    engine.onTimed({ ...DEAF, staged: () => told.push('staged'), evicted: (count) => told.push(count) });
    const content = (digest: string) => ({ digest, body: Buffer.alloc(0), bound: { modules: [] } }) as never;
    for (const digest of ['a', 'a', 'b']) await engine.stage(content(digest));
    expect(told).toEqual(['staged', 0, 0, 'staged', 1]);
  });

  it('says without its words that an activation failed', async () => {
    const fake = new FakeEngine();
    const engine = new NativeEngine(fake.start);
    fake.activate = async () => {
      throw engineError('engine_failed', 'at 0x7ffe0123');
    };
    await expect(engine.activate('sql', 'sha256:aa', false)).rejects.toMatchObject({ code: 'internal' });
  });
});
