import { EventEmitter } from 'node:events';
import type { FastifyReply } from 'fastify';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { cutOffUnread, patiently } from '../../../server/openai/unread.ts';

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
afterEach(() => void vi.useRealTimers());

function reply() {
  const raw = Object.assign(new EventEmitter(), { destroy: vi.fn() });
  cutOffUnread({ raw } as unknown as FastifyReply);
  return raw;
}

it('an answer that is handed over and not read is cut off after a minute', () => {
  const raw = reply();
  raw.emit('prefinish');
  vi.advanceTimersByTime(59_000);
  expect(raw.destroy).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1_000);
  expect(raw.destroy).toHaveBeenCalledOnce();
});

it('an answer that takes long to make is not cut off, nor one that was read', () => {
  const raw = reply();
  vi.advanceTimersByTime(600_000);
  raw.emit('prefinish');
  raw.emit('close');
  vi.advanceTimersByTime(600_000);
  expect(raw.destroy).not.toHaveBeenCalled();
});

it('an answer in pieces is cut off where one is not taken for a minute', async () => {
  const cutOff = vi.fn();
  const pieces = async function* () {
    for (;;) yield 'x'.repeat(100_000);
  };
  const stream = patiently(pieces(), cutOff);
  stream.read(0);
  await new Promise(setImmediate);
  vi.advanceTimersByTime(59_000);
  expect(cutOff).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1_000);
  expect(cutOff).toHaveBeenCalledOnce();
  stream.destroy();
});
