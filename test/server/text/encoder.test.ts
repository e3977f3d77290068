import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { resolve } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { Encoder } from '../../../server/text/encoder.ts';
import type { EncodeJob } from '../../../server/text/encoder-job.ts';
import { Tokenizer } from '../../../server/text/tokenizer.ts';

const PARROT = resolve(import.meta.dirname, '../../fixtures/parrot');
const tokenizer = await Tokenizer.load(PARROT);
const LONG = 'List the level of all planets from Tokyo. <|eot_id|>'.repeat(2000);
const job = (text: string, guarded = false) => ({ text, addSpecial: true, guarded });

let encoder: Encoder;
const NEVER = new AbortController().signal;
const encode = (wanted: EncodeJob, { signal = NEVER, client = '10.0.0.1' } = {}) =>
  encoder.forRequest(client, signal).encode(wanted);
afterEach(() => encoder.close());

describe('encoder', () => {
  it('gives the same ids in its thread as on the event loop, in order', async () => {
    encoder = new Encoder(tokenizer, PARROT);
    const texts = [LONG, 'short', LONG.slice(7), tokenizer.defuse(LONG)];
    const ids = await Promise.all(texts.map((text, index) => encode(job(text, index === 3))));
    expect(ids.slice(0, 3)).toEqual(
      texts.slice(0, 3).map((text) => tokenizer.encode(text, { addSpecial: true })),
    );
    expect(ids[0]).toContain(4);
    expect(ids[3]).not.toContain(4);
  });

  it('does not stop the event loop', async () => {
    encoder = new Encoder(tokenizer, PARROT);
    let turns = 0;
    const counting = setInterval(() => {
      turns += 1;
    }, 1);
    await encode(job(LONG));
    clearInterval(counting);
    expect(turns).toBeGreaterThan(10);
  });

  it('gives up what takes too long, and takes the next', async () => {
    encoder = new Encoder(tokenizer, PARROT, 500);
    const endless = encode(job('€'.repeat(2_000_000)));
    const text = LONG.slice(0, 17_000);
    const next = encode(job(text));
    await expect(endless).rejects.toMatchObject({ code: 'too_slow' });
    expect(await next).toEqual(tokenizer.encode(text, { addSpecial: true }));
  });

  it('says that its model cannot be read', async () => {
    encoder = new Encoder(tokenizer, '/does/not/exist');
    await expect(encode(job(LONG))).rejects.toThrow('Expected tokenizer.json in /does/not/exist');
  });

  it('takes so many and no more', async () => {
    encoder = new Encoder(tokenizer, PARROT);
    const asked = Array.from({ length: 70 }, () => encode(job(LONG)).catch((error) => error.code));
    await encoder.close();
    const outcomes = await Promise.all(asked);
    expect(outcomes.filter((code) => code === 'too_many_jobs')).toHaveLength(6);
    expect(outcomes.filter((code) => code === 'closed')).toHaveLength(64);
  });
});

describe('a client with many long prompts', () => {
  const MANY = { client: '10.0.0.1' };
  const OTHER = { client: '10.0.0.2' };
  const text = LONG.slice(0, 17_000);

  it('lets another be next but one at most', async () => {
    encoder = new Encoder(tokenizer, PARROT);
    const ended: string[] = [];
    const ask = async (asker: typeof MANY) => {
      await encode(job(text), asker);
      ended.push(asker.client);
    };
    const many = Array.from({ length: 20 }, () => ask(MANY));
    await many[0];
    const before = ended.length;
    await ask(OTHER);
    // One is under way already.
    expect(ended.slice(before).indexOf(OTHER.client)).toBeLessThanOrEqual(2);
    await Promise.all(many);
  });

  it('leaves room for the prompt of another, and not for what of it has left', async () => {
    encoder = new Encoder(tokenizer, PARROT);
    const gone = new AbortController();
    const left = encode(job(text), { ...MANY, signal: gone.signal }).catch((error) => error);
    const many = Array.from({ length: 63 }, () => encode(job(text), MANY).catch((error) => error.code));
    const other = encode(job(text), OTHER);
    gone.abort('left');
    const third = encode(job(text), { client: '10.0.0.3' });
    expect(await Promise.all([left, many.at(-1)])).toEqual(['left', 'too_many_jobs']);
    const ids = tokenizer.encode(text, { addSpecial: true });
    expect(await Promise.all([...many.slice(0, -1), other, third])).toEqual(Array(64).fill(ids));
  });
});

describe('a request that has left', () => {
  it('leaves the queue', async () => {
    encoder = new Encoder(tokenizer, PARROT);
    const client = new AbortController();
    const left = Array.from({ length: 64 }, () =>
      encode(job(LONG), { signal: client.signal }).catch((error) => error),
    );
    client.abort('left');
    expect(new Set(await Promise.all(left))).toEqual(new Set(['left']));
    const text = LONG.slice(0, 17_000);
    expect(await encode(job(text))).toEqual(tokenizer.encode(text, { addSpecial: true }));
  });

  // A second is what a running job of nobody's is given to its end; this one would take many.
  it('does not hold the next one up for as long as its text takes', async () => {
    let threads = 0;
    const count = () => {
      threads += 1;
    };
    subscribe('worker_threads', count);
    encoder = new Encoder(tokenizer, PARROT, 600_000);
    const client = new AbortController();
    await encode(job(LONG.slice(0, 17_000)));
    const endless = encode(job('€'.repeat(2_000_000)), { signal: client.signal });
    client.abort('left');
    await expect(endless).rejects.toBe('left');
    await encode(job(LONG.slice(0, 17_000)));
    unsubscribe('worker_threads', count);
    expect(threads).toBe(2);
  });

  it('is not encoded for at all', async () => {
    encoder = new Encoder(tokenizer, PARROT);
    for (const text of ['short', LONG]) {
      await expect(encode(job(text), { signal: AbortSignal.abort('left') })).rejects.toBe('left');
    }
  });
});

describe('the event loop', () => {
  const counted = (onEncode: (characters: number) => void) =>
    ({
      encode: (text: string) => {
        onEncode(text.length);
        return [7];
      },
    }) as unknown as Tokenizer;
  const TEXT = LONG.slice(0, 16_000);

  it('encodes so much of one request and no more', async () => {
    let characters = 0;
    encoder = new Encoder(
      counted((more) => {
        characters += more;
      }),
      PARROT,
    );
    const request = encoder.forRequest('10.0.0.1', NEVER);
    const ids = [await request.encode(job(TEXT)), await request.encode(job(TEXT))];
    expect(ids).toEqual([[7], tokenizer.encode(TEXT, { addSpecial: true })]);
    expect(characters).toBe(TEXT.length);
  });

  it('encodes nothing of a request that left while it waited for its turn', async () => {
    let encoded = 0;
    encoder = new Encoder(
      counted(() => {
        encoded += 1;
      }),
      PARROT,
    );
    const client = new AbortController();
    const first = encode(job(TEXT));
    const second = encode(job(TEXT), { signal: client.signal });
    client.abort('left');
    await expect(second).rejects.toBe('left');
    await first;
    expect(encoded).toBe(1);
  });

  it('encodes so much in one turn and no more, of all requests', async () => {
    const short = LONG.slice(0, 6_000);
    const turns: number[] = [0];
    encoder = new Encoder(
      counted((characters) => {
        turns[0] = (turns[0] as number) + characters;
      }),
      PARROT,
    );
    let counting = true;
    const count = async () => {
      for (; counting; turns.unshift(0)) await nextTurn();
    };
    const counter = count();
    await Promise.all(Array.from({ length: 20 }, () => encode(job(short))));
    counting = false;
    await counter;
    expect(Math.max(...turns)).toBe(2 * short.length);
    expect(turns.reduce((sum, characters) => sum + characters)).toBe(20 * short.length);
  });
});
