import { EventEmitter } from 'node:events';
import type { FastifyReply } from 'fastify';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { ClientStream, type Passage } from '../../../server/sidecar/client-stream.ts';

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
afterEach(() => void vi.useRealTimers());

/** A stream to a client that takes nothing until it drains. */
function slow(more: Partial<Passage> = {}) {
  const raw = Object.assign(new EventEmitter(), {
    writeHead: vi.fn(),
    flushHeaders: vi.fn(),
    write: vi.fn(() => false),
    end: vi.fn(),
    destroy: vi.fn(),
  });
  const reply = { raw, hijack: vi.fn(), getHeaders: () => ({ 'x-request-id': '1' }) };
  const passage = {
    rewrite: (chunk: Buffer) => chunk,
    rest: () => 'rest',
    onFirst: vi.fn(),
    brokenOff: null,
    ...more,
  };
  const head = { status: 200, headers: { 'content-type': 'text/event-stream' } };
  return { raw, passage, stream: new ClientStream(reply as unknown as FastifyReply, head, passage) };
}

it('has the headers of the reply in its head, which goes soon', () => {
  const { raw } = slow();
  const headers = { 'x-request-id': '1', 'content-type': 'text/event-stream' };
  expect(raw.writeHead).toHaveBeenCalledWith(200, headers);
  vi.advanceTimersByTime(5);
  expect(raw.flushHeaders).toHaveBeenCalledOnce();
});

it.each([
  ['bytes', (stream: ClientStream) => stream.write(Buffer.from('a'), vi.fn())],
  ['its end', (stream: ClientStream) => stream.end()],
  ['a break', (stream: ClientStream) => stream.breakOff()],
])('has its head with %s that come before', (_, comes) => {
  const { raw, stream } = slow();
  comes(stream);
  vi.advanceTimersByTime(1000);
  expect(raw.flushHeaders).not.toHaveBeenCalled();
});

it('tells of the first bytes that go out, once', () => {
  const { passage, stream } = slow({ rewrite: (chunk) => (chunk.length === 1 ? '' : chunk) });
  stream.write(Buffer.from('a'), vi.fn());
  expect(passage.onFirst).not.toHaveBeenCalled();
  stream.write(Buffer.from('ab'), vi.fn());
  stream.write(Buffer.from('cd'), vi.fn());
  expect(passage.onFirst).toHaveBeenCalledOnce();
});

it('asks for more once the client has taken what it had', () => {
  const { raw, stream } = slow();
  const resume = vi.fn();
  expect(stream.write(Buffer.from('ab'), resume)).toBe(false);
  expect(resume).not.toHaveBeenCalled();
  raw.emit('drain');
  raw.emit('close');
  vi.advanceTimersByTime(600_000);
  expect(resume).toHaveBeenCalledOnce();
  expect(raw.destroy).not.toHaveBeenCalled();
});

it('is cut off when the client takes nothing for a minute', () => {
  const { raw, stream } = slow();
  stream.write(Buffer.from('ab'), vi.fn());
  vi.advanceTimersByTime(59_999);
  expect(raw.destroy).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1);
  expect(raw.destroy).toHaveBeenCalledOnce();
});

it('ends with what was held back', () => {
  const { raw, stream } = slow();
  stream.end();
  expect(raw.end).toHaveBeenCalledWith('rest');
});

it('that breaks off ends with words where it has some, else in the middle', () => {
  const events = slow({ brokenOff: 'data: error\n\n' });
  events.stream.breakOff();
  expect(events.raw.end).toHaveBeenCalledWith('data: error\n\n');
  const bytes = slow();
  bytes.stream.breakOff();
  expect(bytes.raw.destroy).toHaveBeenCalledOnce();
  expect(bytes.raw.end).not.toHaveBeenCalled();
});
