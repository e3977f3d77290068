import type { ServerResponse } from 'node:http';
import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { bodyDeadlineMs } from '../../../server/transfer/limits.ts';
import { type IncomingBody, pump } from '../../../server/transfer/request-body.ts';

function body(): PassThrough & IncomingBody['request'] {
  return Object.assign(new PassThrough(), { headers: {} }) as unknown as PassThrough &
    IncomingBody['request'];
}

function pumped(request: IncomingBody['request'], take: (chunk: Buffer) => void): Promise<void> {
  return pump({ request, response: {} as ServerResponse }, take, 30_000);
}

describe('a body', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
  afterEach(() => void vi.useRealTimers());

  it('is given a time that its size needs', () => {
    expect(bodyDeadlineMs(0)).toBe(30_000);
    expect(bodyDeadlineMs(512 << 20)).toBe(512_000);
  });

  it('that trickles is refused at its deadline', async () => {
    const stream = body();
    const done = expect(pumped(stream, () => {})).rejects.toMatchObject({ code: 'request_timeout' });
    for (let i = 0; i < 30; i++) {
      stream.write('x');
      vi.advanceTimersByTime(1000);
    }
    await done;
    expect(stream.listenerCount('data')).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('that breaks off is refused', async () => {
    const stream = body();
    const done = expect(pumped(stream, () => {})).rejects.toMatchObject({ code: 'malformed_request' });
    stream.destroy(new Error('reset'));
    await done;
  });

  it('is taken no further after a refusal', async () => {
    const stream = body();
    const taken: string[] = [];
    const take = (chunk: Buffer) => {
      taken.push(String(chunk));
      throw new Error('enough');
    };
    const done = expect(pumped(stream, take)).rejects.toThrow('enough');
    stream.write('a');
    await done;
    stream.write('b');
    stream.resume();
    await new Promise(setImmediate);
    expect(taken).toEqual(['a']);
  });
});
