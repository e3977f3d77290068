import { describe, expect, it } from 'vitest';
import {
  intentOf,
  isSettledByStatus,
  newerInPods,
  recordFromPod,
} from '../../../operator/adapter/desired.ts';
import { Records } from '../../../operator/adapter/records.ts';
import type { RevisionRecord } from '../../../operator/api/lora-adapter.ts';
import { type Lock, Serial } from '../../../server/transfer/serial.ts';
import { FakePod } from '../../support/pod/fake-pod.ts';
import { adapterState, digest, held } from '../../support/pod/state.ts';
import { loraAdapter } from './objects.ts';

const [A, B, C] = [digest('a'), digest('b'), digest('c')];

type At = readonly [term: number, sequence: number];
const UID = 'uid-sql';
const fenceOf = ([term, sequence]: At) => ({ term, sequence });

function revision(of: string, step: number | null = null, accepted?: At): RevisionRecord {
  const shape = { bytes: 1, rank: 8, targetModules: ['q_proj'] };
  const at = '2026-06-01T00:00:00Z';
  return {
    digest: of,
    short: of.slice(7, 19),
    step,
    ...shape,
    at,
    ...(accepted && { accepted: fenceOf(accepted) }),
  };
}

function podWith(
  current: string,
  fence: At | null,
  accepted: At | null = fence,
  { step = null, object = UID }: { step?: number | null; object?: string } = {},
) {
  const at = { fence: fence && fenceOf(fence), accepted: accepted && { ...fenceOf(accepted), object } };
  return new FakePod({
    adapters: [{ ...adapterState('sql', current, [held(current, 'current', { step })]), ...at }],
  });
}

describe('what pods have of a pushed adapter that is newer than what is known', () => {
  const known = revision(B, null, [1, 5]);
  it.each([
    ['nothing is known anywhere', null, [], null],
    ['only pods know', null, [podWith(A, [1, 1])], A],
    ['only status knows', known, [], null],
    ['they agree', known, [podWith(B, [1, 6], [1, 5])], null],
    ['pods have a later one', known, [podWith(B, [1, 6], [1, 5]), podWith(C, [1, 8], [1, 7])], C],
    ['a pod has an earlier one', known, [podWith(A, [1, 2], [1, 1])], null],
    ['a pod was given an earlier one by a later operator', known, [podWith(A, [2, 1], [1, 1])], null],
    ['a pod has the same content, accepted again', known, [podWith(B, [1, 9], [1, 8])], B],
    ['the term counts before the sequence', null, [podWith(A, [1, 9]), podWith(B, [2, 1])], B],
    ['put by hand, without a fence, it does not count', known, [podWith(C, null)], null],
    [
      'a pod has it of an object of that name before',
      null,
      [podWith(A, [1, 6], [1, 6], { object: 'x' })],
      null,
    ],
    ['a server that knows no acceptance tells the fence', known, [podWith(C, [1, 6], null)], C],
    ['an operator that knew none wrote status', revision(B), [podWith(C, [1, 1])], C],
  ] as const)('%s', (_name, told, pods, expected) => {
    expect(newerInPods(told, pods, { servedName: 'sql', uid: UID })?.digest ?? null).toBe(expected);
  });

  it('accepted again with a later step is the same revision, with that step', () => {
    const pod = podWith(B, [1, 9], [1, 8], { step: 12 });
    const found = { pod, digest: B, accepted: fenceOf([1, 8]) };
    const seen = { servedName: 'sql', known: { ...known, pushedBy: 'trainer' }, now: new Date(0) };
    expect(recordFromPod(found, seen)).toEqual({ ...seen.known, step: 12, accepted: found.accepted });
  });

  it('accepted last by a push is no rollback any more, and by a rollback it is one', () => {
    const pod = podWith(B, [1, 9], [1, 8]);
    const rollback = { from: C, reachedStep: 3 };
    const found = { pod, digest: B, accepted: fenceOf([1, 8]) };
    const seen = { servedName: 'sql', now: new Date(0) };
    const before = { ...known, rollback };
    expect(recordFromPod(found, { ...seen, known: before }).rollback).toBeUndefined();
    expect(recordFromPod({ ...found, rollback }, { ...seen, known }).rollback).toEqual(rollback);
  });
});

describe('adopting a revision', () => {
  const pins: string[] = [];
  const spool = {
    pin: (of: string) => pins.push(`+${of}`),
    unpin: (of: string) => pins.push(`-${of}`),
  };
  const locked = (task: (lock: Lock) => void) =>
    new Serial().run('lora/sql', async (lock) => {
      task(lock);
      return lock;
    });

  it('raises the sequence, keeps so many earlier ones, and pins only the desired one', async () => {
    const record = new Records().of('lora/sql', 'uid', spool);
    const before = record.sequence;
    await locked((lock) => {
      for (const of of [A, B, C]) record.adopt(lock, revision(of), { keep: 1, spool });
    });
    expect(record.desired?.digest).toBe(C);
    expect(record.previous.map((item) => item.digest)).toEqual([B]);
    expect(record.sequence).toBe(before + 3);
    expect(pins).toEqual([`+${A}`, `+${B}`, `-${A}`, `+${C}`, `-${B}`]);
  });

  it('again is no change', async () => {
    const record = new Records().of('lora/sql', 'uid', spool);
    const adopt = (lock: Lock) => record.adopt(lock, revision(A), { keep: 2, spool });
    await locked(adopt);
    const { sequence } = record;
    await locked(adopt);
    expect([record.sequence, record.previous]).toEqual([sequence, []]);
  });

  it('only under the mutex of the adapter', async () => {
    const record = new Records().of('lora/sql', 'uid', spool);
    const adopt = (lock: Lock) => record.adopt(lock, revision(A), { keep: 2, spool });
    const released = await locked(() => {});
    expect(() => adopt(released)).toThrow('not held');
    await expect(new Serial().run('lora/other', async (lock) => adopt(lock))).rejects.toThrow('not held');
    expect(record.desired).toBeNull();
  });

  it('that pods refuse leaves the last good one as what pods get', () => {
    const record = new Records().of('lora/sql', 'uid', spool);
    record.recover({ desiredRevision: revision(B), currentRevision: revision(A) }, null, spool);
    expect(record.target?.digest).toBe(B);
    const { sequence } = record;
    const failure = { reason: 'AdapterIncompatible', message: '', terminal: true } as const;
    const times = { retryAtMs: 0, retryAt: new Date(0), used: null };
    record.failPod(
      'uid-pod-0',
      { bootId: '', digest: B, failures: 1, code: 'no_modules', ...failure, ...times },
      failure,
    );
    expect(record.target?.digest).toBe(A);
    expect(record.sequence).toBe(sequence + 1);
  });
});

describe('what makes a source be resolved anew', () => {
  const base = loraAdapter('sql');
  it.each([
    ['nothing', loraAdapter('sql'), true],
    ['suspend', loraAdapter('sql', { spec: { suspend: true } }), true],
    [
      'another uri',
      loraAdapter('sql', { spec: { source: { objectStore: { uri: 's3://bucket/other/' } } } }),
      false,
    ],
    ['expectations', loraAdapter('sql', { spec: { verify: { rank: 8 } } }), false],
    [
      'the refresh annotation',
      loraAdapter('sql', { metadata: { annotations: { 'lorikeet.dev/refresh': '1' } } }),
      false,
    ],
  ])('%s', (_name, changed, same) => {
    expect(intentOf(changed) === intentOf(base)).toBe(same);
  });

  it('status tells that a spec was resolved only for its generation and its annotation', () => {
    const condition = (type: 'SourceResolved' | 'Verified') =>
      ({
        type,
        status: 'True',
        reason: 'x',
        message: '',
        lastTransitionTime: '',
        observedGeneration: 3,
      }) as const;
    const status = {
      desiredRevision: revision(A),
      conditions: [condition('SourceResolved'), condition('Verified')],
    };
    const settled = { ...loraAdapter('sql', { metadata: { generation: 3 } }), status };
    const annotations = { 'lorikeet.dev/refresh': '2', 'lorikeet.dev/refreshed': '1' };
    expect(isSettledByStatus(settled)).toBe(true);
    expect(isSettledByStatus({ ...settled, metadata: { ...settled.metadata, generation: 4 } })).toBe(false);
    expect(isSettledByStatus({ ...settled, metadata: { ...settled.metadata, annotations } })).toBe(false);
  });
});
