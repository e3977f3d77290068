import { describe, expect, it } from 'vitest';
import type { EngineErrorCode, GenerateRequest } from '../../../native/types.ts';
import { Door, type RequestEvent } from '../../../server/engine/door.ts';
import { type Scripted, type ScriptedEngine, scriptedEngine } from '../../support/scripted-engine.ts';

const REQUEST: Omit<GenerateRequest, 'id'> = {
  prompt: [1],
  target: { kind: 'base' },
  maxTokens: 4,
  stopTokens: [],
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  seed: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  logitBias: [],
  logprobs: -1,
  promptLogprobs: -1,
  loraScale: 1,
};
const accepted: Scripted = { type: 'accepted', revision: null, step: 1 };
const token = (id: number): Scripted => ({ type: 'token', token: id, logprobs: null });
const finished: Scripted = { type: 'finished', reason: 'length', stopToken: null, logprobs: null };
const failed = (code: EngineErrorCode): Scripted => ({ type: 'failed', code, message: code });

function open(script: (request: GenerateRequest) => Scripted[]): { door: Door; scripted: ScriptedEngine } {
  let scripted: ScriptedEngine | undefined;
  const door = new Door((onEvents) => {
    scripted = scriptedEngine(onEvents, script);
    return scripted.engine;
  });
  return { door, scripted: scripted as unknown as ScriptedEngine };
}

async function typesOf(events: AsyncIterable<RequestEvent>): Promise<string[]> {
  const types: string[] = [];
  for await (const event of events) types.push(event.type === 'token' ? String(event.token) : event.type);
  return types;
}

const never = () => new AbortController().signal;

describe('door', () => {
  it('brings each event to the request that waits for it', async () => {
    const { door } = open(({ prompt: [first = 0] }) => [accepted, token(first), token(first + 1), finished]);
    const runs = [10, 20, 30].map((first) =>
      typesOf(door.generate({ ...REQUEST, prompt: [first] }, never())),
    );
    expect(await Promise.all(runs)).toEqual([
      ['accepted', '10', '11', 'finished'],
      ['accepted', '20', '21', 'finished'],
      ['accepted', '30', '31', 'finished'],
    ]);
    expect(door.live).toBe(0);
  });

  it('ends with a failure', async () => {
    const { door, scripted } = open(() => [failed('queue_full')]);
    expect(await typesOf(door.generate(REQUEST, never()))).toEqual(['failed']);
    expect(door.live).toBe(0);
    expect(scripted.cancelled).toEqual([]);
  });

  it('submits nothing for a request that is aborted already', async () => {
    const { door, scripted } = open(() => [accepted]);
    await expect(typesOf(door.generate(REQUEST, AbortSignal.abort()))).rejects.toThrow();
    expect(scripted.submitted).toEqual([]);
  });

  it('cancels where the reader leaves, and lets the last event pass', async () => {
    const { door, scripted } = open(() => [accepted, token(1), token(2)]);
    for await (const event of door.generate(REQUEST, never())) if (event.type === 'token') break;
    expect(scripted.cancelled).toEqual([1]);
    scripted.emit([{ id: 1, type: 'finished', reason: 'cancelled', stopToken: null, logprobs: null }]);
    expect(door.live).toBe(0);
  });

  it('cancels on abort and ends with what the engine says', async () => {
    const { door, scripted } = open(() => [accepted]);
    const controller = new AbortController();
    const run = typesOf(door.generate(REQUEST, controller.signal));
    await new Promise(setImmediate);
    controller.abort();
    expect(scripted.cancelled).toEqual([1]);
    scripted.emit([{ id: 1, type: 'finished', reason: 'cancelled', stopToken: null, logprobs: null }]);
    expect(await run).toEqual(['accepted', 'finished']);
  });

  it('forgets a request whose reader never comes back', async () => {
    const { door } = open(() => [accepted, finished]);
    await door.generate(REQUEST, never()).next();
    expect(door.live).toBe(0);
  });

  it('leaves nothing behind where the engine refuses the request itself', async () => {
    const { door } = open(() => {
      throw Object.assign(new Error('prompt'), { code: 'invalid_argument' });
    });
    await expect(door.generate(REQUEST, never()).next()).rejects.toMatchObject({ code: 'invalid_argument' });
    expect(door.live).toBe(0);
  });

  it('tells who listens which revisions are free', () => {
    const { door, scripted } = open(() => []);
    const freed: string[] = [];
    door.onFreed((digest) => freed.push(digest));
    scripted.emit([{ id: 0, type: 'freed', revision: 'sha256:aa' }]);
    expect(freed).toEqual(['sha256:aa']);
  });

  it('remembers that the engine failed', async () => {
    const { door } = open(() => [failed('engine_failed')]);
    expect(door.failed).toBeNull();
    await typesOf(door.generate(REQUEST, never()));
    expect(door.failed).toBe('engine_failed');
  });
});
