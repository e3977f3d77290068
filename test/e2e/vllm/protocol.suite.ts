import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FakeVllm } from '../../support/fake-vllm/server.ts';
import { fixtureAdapter } from '../client.ts';
import { type RealVllm, START_MS, startVllm } from './engine.ts';

/** That the fake of the tests in CI speaks as the real one does, in all that the sidecar reads. */

let real: RealVllm;
let fake: FakeVllm;
let dir: string;

beforeAll(async () => {
  [real, fake] = await Promise.all([
    startVllm(['--enable-lora', '--max-loras=2', '--max-cpu-loras=2', '--max-lora-rank=16']),
    FakeVllm.start({ maxLoras: 2, maxLoraRank: 16, isDev: false, version: '0.32.0+cpu' }),
  ]);
  dir = await mkdtemp(join(tmpdir(), 'lorikeet-protocol-'));
  const { tensors, config } = await fixtureAdapter('sql');
  await writeFile(join(dir, 'adapter_model.safetensors'), tensors);
  await writeFile(join(dir, 'adapter_config.json'), config);
}, START_MS);
afterAll(async () => {
  await real?.kill();
  await fake?.stop();
  await rm(dir, { recursive: true, force: true });
});

interface Said {
  status: number;
  type: string;
  /** What the sidecar reads of it. */
  body: unknown;
}

async function said(
  url: string,
  path: string,
  body: object | null,
  read: (text: string) => unknown,
): Promise<Said> {
  const response = await fetch(url + path, {
    ...(body !== null && {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    }),
  });
  const text = await response.text();
  const type = (response.headers.get('content-type') ?? '').split(';')[0] ?? '';
  return { status: response.status, type, body: read(text) };
}

async function expectSame(path: string, body: object | null, read: (text: string) => unknown): Promise<Said> {
  const [theirs, ours] = await Promise.all([real.url, fake.url].map((url) => said(url, path, body, read)));
  expect(ours).toEqual(theirs);
  return theirs as Said;
}

const names = (text: string) =>
  JSON.parse(text).data.map(({ id, parent }: { id: string; parent?: string | null }) => ({
    id,
    parent: parent ?? null,
  }));
const nothing = () => null;
const words = (pattern: RegExp) => (text: string) => pattern.test(text);

describe('the fake speaks as the real one', () => {
  it('of its models', () => expectSame('/v1/models', null, names));

  it('of its version', () => expectSame('/version', null, (text) => Object.keys(JSON.parse(text))));

  it('of its metrics: when its process began', () =>
    expectSame('/metrics', null, words(/^process_start_time_seconds \d/m)));

  it('keeps its configuration to itself', () => expectSame('/server_info?config_format=json', null, nothing));

  it('loads a folder, and lists it', async () => {
    await expectSame('/v1/load_lora_adapter', { lora_name: 'a', lora_path: dir }, words(/Success/));
    await expectSame('/v1/models', null, names);
  });

  it('refuses the same name again in words that are known', () =>
    expectSame('/v1/load_lora_adapter', { lora_name: 'a', lora_path: dir }, words(/already been loaded/)));

  it('refuses a folder that is not there', () =>
    expectSame('/v1/load_lora_adapter', { lora_name: 'b', lora_path: '/nowhere' }, nothing));

  it('answers under it, and says its name', () =>
    expectSame('/v1/completions', { model: 'a', prompt: 'x', max_tokens: 2, ignore_eos: true }, (text) => {
      const { model, choices, usage } = JSON.parse(text);
      return [model, choices[0].finish_reason, usage.completion_tokens];
    }));

  it('streams', () =>
    expectSame(
      '/v1/completions',
      { model: 'a', prompt: 'x', max_tokens: 2, ignore_eos: true, stream: true },
      (text) => {
        const events = text.trimEnd().split('\n\n');
        const last = JSON.parse(events.at(-2)?.slice('data: '.length) ?? '');
        return [events.at(-1), last.model, last.choices[0].finish_reason, / "model"|"model":\s"/.test(text)];
      },
    ));

  it('does not know a name', () =>
    expectSame('/v1/completions', { model: 'nobody', prompt: 'x' }, (text) => Object.keys(JSON.parse(text))));

  it('unloads it', async () => {
    await expectSame('/v1/unload_lora_adapter', { lora_name: 'a' }, words(/Success/));
    await expectSame('/v1/models', null, names);
  });

  it('does not find what it is to unload', () =>
    expectSame('/v1/unload_lora_adapter', { lora_name: 'a' }, words(/cannot be found/)));
});
