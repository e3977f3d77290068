import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Pool } from 'undici';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { exchange, type Head, type Sink, Whole } from '../../../server/sidecar/exchange.ts';
import { eventually } from '../../support/eventually.ts';

const SOON = { timeoutMs: 5_000, everyMs: 5 };

let engine: Server;
let pool: Pool;
let answer: (response: ServerResponse) => void;

beforeEach(async () => {
  engine = createServer((request, response) => request.resume().once('end', () => answer(response)));
  await new Promise<void>((done) => engine.listen(0, '127.0.0.1', done));
  pool = new Pool(`http://127.0.0.1:${(engine.address() as AddressInfo).port}`);
});
afterEach(async () => {
  await pool.destroy();
  engine.closeAllConnections();
  await new Promise((done) => engine.close(done));
});

const REQUEST = { method: 'POST', path: '/v1/completions', body: Buffer.from('{}') } as const;

function ask<S extends Sink>(open: (head: Head) => S, signal = new AbortController().signal): Promise<S> {
  return exchange(pool, REQUEST, signal, open);
}
const whole = (head: Head) => new Whole(head, 100);

/** Notes what becomes of it, and takes a piece at a time. */
class Slow implements Sink {
  readonly pieces: string[] = [];
  end = vi.fn();
  breakOff = vi.fn();
  resume: (() => void) | null = null;

  write(chunk: Buffer, resume: () => void): boolean {
    this.pieces.push(chunk.toString());
    this.resume = resume;
    return false;
  }
}

describe('an exchange with the engine', () => {
  it('brings the head, then all of the answer', async () => {
    answer = (response) => {
      response.writeHead(404, { 'content-type': 'application/json' }).write('{"a"');
      response.end(':1}');
    };
    const { head, bytes } = await ask(whole);
    expect([head.status, head.headers['content-type'], bytes.toString()]).toEqual([
      404,
      'application/json',
      '{"a":1}',
    ]);
  });

  it('ends where the answer is longer than may be held', async () => {
    answer = (response) => response.end('x'.repeat(101));
    await expect(ask(whole)).rejects.toThrow('longer than 100 bytes');
  });

  it('goes on only when the last piece has been taken', async () => {
    const sink = new Slow();
    answer = (response) => {
      response.write('first');
      setTimeout(() => response.end('second'), 20);
    };
    const done = ask(() => sink);
    await eventually('it began', SOON, () => sink.resume ?? undefined);
    await new Promise((later) => setTimeout(later, 100));
    expect([sink.pieces, sink.end.mock.calls.length]).toEqual([['first'], 0]);
    sink.resume?.();
    await eventually('it went on', SOON, () => sink.pieces[1]);
    sink.resume?.();
    await done;
    expect([sink.pieces, sink.end.mock.calls.length]).toEqual([['first', 'second'], 1]);
  });

  it('tells of an answer that breaks off', async () => {
    const sink = new Slow();
    answer = (response) => {
      response.write('first');
      setTimeout(() => response.destroy(), 20);
    };
    const done = ask(() => sink);
    void eventually('it began', SOON, () => sink.resume ?? undefined).then((resume) => resume());
    await expect(done).rejects.toThrow('other side closed');
    expect([sink.breakOff.mock.calls.length, sink.end.mock.calls.length]).toEqual([1, 0]);
  });

  it('is left at the signal, and the engine sees that', async () => {
    const left = vi.fn();
    answer = (response) => response.once('close', left).write('first');
    const controller = new AbortController();
    const sink = new Slow();
    const done = ask(() => sink, controller.signal);
    await eventually('it began', SOON, () => sink.resume ?? undefined);
    controller.abort(new Error('gone'));
    await expect(done).rejects.toThrow('gone');
    await eventually('the engine sees it', SOON, () => left.mock.calls[0]);
  });

  it('does not begin after the signal', async () => {
    await expect(ask(whole, AbortSignal.abort(new Error('gone')))).rejects.toThrow('gone');
  });

  it('fails where nobody listens', async () => {
    await new Promise((done) => engine.close(done));
    await expect(ask(whole)).rejects.toThrow('ECONNREFUSED');
    engine.listen(0);
  });
});
