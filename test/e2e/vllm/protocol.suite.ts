import { rm } from 'node:fs/promises';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { FakeVllm } from '../../support/fake-vllm/server.ts';
import { type RealEngine, START_MS } from '../attached/real-engine.ts';
import { choice, expectSame, names, nothing, sqlFolder, stream, words } from '../attached/same-words.ts';
import { startVllm } from './engine.ts';

/** That the fake of the tests in CI speaks as the real one does, in all that the sidecar reads. */

let real: RealEngine;
let fake: FakeVllm;
let dir: string;

beforeAll(async () => {
  [real, fake, dir] = await Promise.all([
    startVllm(['--enable-lora', '--max-loras=2', '--max-cpu-loras=2', '--max-lora-rank=16']),
    FakeVllm.start({ maxLoras: 2, maxLoraRank: 16, isDev: false, version: '0.32.0+cpu' }),
    sqlFolder(),
  ]);
}, START_MS);
afterAll(async () => {
  await real?.kill();
  await fake?.stop();
  await rm(dir, { recursive: true, force: true });
});

describe('the fake speaks as the real one', () => {
  it('of its models', () => expectSame({ real, fake }, '/v1/models', null, names));

  it('of its version', () =>
    expectSame({ real, fake }, '/version', null, (text) => Object.keys(JSON.parse(text))));

  it('of its metrics: when its process began', () =>
    expectSame({ real, fake }, '/metrics', null, words(/^process_start_time_seconds \d/m)));

  it('keeps its configuration to itself', () =>
    expectSame({ real, fake }, '/server_info?config_format=json', null, nothing));

  it('loads a folder, and lists it', async () => {
    await expectSame(
      { real, fake },
      '/v1/load_lora_adapter',
      { lora_name: 'a', lora_path: dir },
      words(/Success/),
    );
    await expectSame({ real, fake }, '/v1/models', null, names);
  });

  it('refuses the same name again in words that are known', () =>
    expectSame(
      { real, fake },
      '/v1/load_lora_adapter',
      { lora_name: 'a', lora_path: dir },
      words(/already been loaded/),
    ));

  it('refuses a folder that is not there', () =>
    expectSame({ real, fake }, '/v1/load_lora_adapter', { lora_name: 'b', lora_path: '/nowhere' }, nothing));

  it('answers under it, and says its name', () =>
    expectSame(
      { real, fake },
      '/v1/completions',
      { model: 'a', prompt: 'x', max_tokens: 2, ignore_eos: true },
      choice,
    ));

  it('streams', () =>
    expectSame(
      { real, fake },
      '/v1/completions',
      { model: 'a', prompt: 'x', max_tokens: 2, ignore_eos: true, stream: true },
      stream,
    ));

  it('does not know a name', () =>
    expectSame({ real, fake }, '/v1/completions', { model: 'nobody', prompt: 'x' }, (text) =>
      Object.keys(JSON.parse(text)),
    ));

  it('unloads it', async () => {
    await expectSame({ real, fake }, '/v1/unload_lora_adapter', { lora_name: 'a' }, words(/Success/));
    await expectSame({ real, fake }, '/v1/models', null, names);
  });

  it('does not find what it is to unload', () =>
    expectSame({ real, fake }, '/v1/unload_lora_adapter', { lora_name: 'a' }, words(/cannot be found/)));
});
