import { resolve } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { Encoder } from '../../../server/text/encoder.ts';
import { Tokenizer } from '../../../server/text/tokenizer.ts';

const PARROT = resolve(import.meta.dirname, '../../fixtures/parrot');
const tokenizer = await Tokenizer.load(PARROT);
const LONG = 'List the level of all planets from Tokyo. <|eot_id|>'.repeat(2000);
const job = (text: string, guarded = false) => ({ text, addSpecial: true, guarded });

let encoder: Encoder;
afterEach(() => encoder.close());

describe('encoder', () => {
  it('gives the same ids in its thread as on the event loop, in order', async () => {
    encoder = new Encoder(tokenizer, PARROT);
    const texts = [LONG, 'short', LONG.slice(7), tokenizer.defuse(LONG)];
    const ids = await Promise.all(texts.map((text, index) => encoder.encode(job(text, index === 3))));
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
    await encoder.encode(job(LONG));
    clearInterval(counting);
    expect(turns).toBeGreaterThan(10);
  });

  it('gives up what takes too long, and takes the next', async () => {
    encoder = new Encoder(tokenizer, PARROT, 500);
    const endless = encoder.encode(job('€'.repeat(2_000_000)));
    const text = LONG.slice(0, 17_000);
    const next = encoder.encode(job(text));
    await expect(endless).rejects.toMatchObject({ code: 'too_slow' });
    expect(await next).toEqual(tokenizer.encode(text, { addSpecial: true }));
  });

  it('says that its model cannot be read', async () => {
    encoder = new Encoder(tokenizer, '/does/not/exist');
    await expect(encoder.encode(job(LONG))).rejects.toThrow('Expected tokenizer.json in /does/not/exist');
  });

  it('takes so many and no more', async () => {
    encoder = new Encoder(tokenizer, PARROT);
    const asked = Array.from({ length: 70 }, () => encoder.encode(job(LONG)).catch((error) => error.code));
    await encoder.close();
    const outcomes = await Promise.all(asked);
    expect(outcomes.filter((code) => code === 'too_many_jobs')).toHaveLength(6);
    expect(outcomes.filter((code) => code === 'closed')).toHaveLength(64);
  });
});
