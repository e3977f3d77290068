import { rm } from 'node:fs/promises';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { FakeSglang } from '../../support/fake-sglang.ts';
import { type RealEngine, START_MS } from '../attached/real-engine.ts';
import { choice, expectSame, names, nothing, sqlFolder, stream, words } from '../attached/same-words.ts';
import { startSglang } from './engine.ts';

/** That the fake of the tests in CI speaks as the real one does, in all that the sidecar reads. */

let real: RealEngine;
let fake: FakeSglang;
let dir: string;

beforeAll(async () => {
  [real, fake, dir] = await Promise.all([
    startSglang(['--max-lora-rank=64', '--max-loras-per-batch=1', '--max-loaded-loras=2']),
    FakeSglang.start(),
    sqlFolder(),
  ]);
}, START_MS);
afterAll(async () => {
  await real?.kill();
  await fake?.stop();
  await rm(dir, { recursive: true, force: true });
});

const load = (name: string, path = dir) =>
  ['/load_lora_adapter', { lora_name: name, lora_path: path }] as const;
const unload = (name: string) => ['/unload_lora_adapter', { lora_name: name }] as const;
const complete = (more: object) =>
  ['/v1/completions', { model: 'parrot', prompt: 'x', max_tokens: 2, ignore_eos: true, ...more }] as const;
const generate = (more: object) =>
  ['/generate', { text: 'x', sampling_params: { max_new_tokens: 2, ignore_eos: true }, ...more }] as const;
/** Of the last event where it is a stream. */
const lastVersions = (text: string) => {
  const events = text.replaceAll('data: ', '').replace('[DONE]', '').trimEnd().split('\n\n');
  const { finish_reason, weight_version, weight_versions } = JSON.parse(events.at(-1) ?? '').meta_info;
  return { finish_reason, weight_version, weight_versions };
};
const isDone = (text: string) => JSON.parse(text).success;

describe('the fake speaks as the real one', () => {
  it('of its models', () => expectSame({ real, fake }, '/v1/models', null, names));

  it('of its limits', () =>
    expectSame({ real, fake }, '/server_info', null, (text) => {
      const told = JSON.parse(text);
      return [
        ...[told.served_model_name, told.context_length, told.max_loaded_loras],
        ...[told.max_loras_per_batch, told.max_lora_rank],
      ];
    }));

  it('has no metrics unless it is asked for them', () =>
    expectSame({ real, fake }, '/metrics', null, nothing));

  it('loads a folder, and lists it', async () => {
    await expectSame({ real, fake }, ...load('a'), isDone);
    await expectSame({ real, fake }, '/v1/models', null, names);
  });

  it('refuses the same name again in words that are known', () =>
    expectSame({ real, fake }, ...load('a'), words(/is already loaded/)));

  it('refuses a folder that is not there', () =>
    expectSame({ real, fake }, ...load('b', '/nowhere'), isDone));

  it.each([{ lora_path: 'a' }, { model: 'parrot:a' }, { model: 'whatever' }])(
    'answers under it: %j',
    (more) => expectSame({ real, fake }, ...complete(more), choice),
  );

  it('streams', () => expectSame({ real, fake }, ...complete({ lora_path: 'a', stream: true }), stream));

  it('says the version of its weights, here', () =>
    expectSame({ real, fake }, ...complete({ lora_path: 'a' }), (text) => JSON.parse(text).metadata));

  it.each([false, true])('and where it is asked in its own way, streamed: %s', (stream) =>
    expectSame({ real, fake }, ...generate({ lora_path: 'a', stream }), lastVersions),
  );

  it('says that it was never given an adapter', () =>
    expectSame({ real, fake }, ...complete({ lora_path: 'nobody' }), words(/has never been loaded: nobody/)));

  it('pushes out the least recently used for one more than it holds', async () => {
    for (const name of ['b', 'c']) await expectSame({ real, fake }, ...load(name), isDone);
    await expectSame({ real, fake }, '/v1/models', null, names);
  });

  it('unloads it', async () => {
    await expectSame({ real, fake }, ...unload('b'), isDone);
    await expectSame({ real, fake }, '/v1/models', null, names);
  });

  it('does not find what it is to unload', () =>
    expectSame({ real, fake }, ...unload('b'), words(/does not exist/)));
});
