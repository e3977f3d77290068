import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { PARROT, type ParrotServer, startParrot } from '../../support/parrot-server.ts';
import { Recorder, type Reply } from './recorder.ts';
import { RecordingProxy } from './recording-proxy.ts';

const BASE = 'parrot';
/** Of the fixture's files. */
const PIRATE = 'sha256:9e0ec293869f8e463a3267e5f62c40cd63f1141a07777d6c69b7b5f4b9bcaf56';
const OTHER = `sha256:${'0'.repeat(64)}`;
const dirOf = (fixture: string) => join(PARROT, 'adapters', fixture);

const loadOf = (name: string, dir: string) =>
  JSON.stringify({ lora_name: name, lora_path: dir, load_inplace: false });
const completionOf = (model: string) =>
  JSON.stringify({
    model,
    prompt: [0],
    max_tokens: 3,
    temperature: 0.7,
    logprobs: 0,
    return_token_ids: true,
  });

describe('between a trainer and a server', () => {
  let root: string;
  let server: ParrotServer;
  let recorder: Recorder;
  let proxy: RecordingProxy;
  beforeAll(async () => {
    root = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
    for (const name of ['pirate', 'sql']) cpSync(dirOf(name), join(root, name), { recursive: true });
    server = await startParrot(['--vllm-api', '--lora-root', root]);
  });
  afterAll(async () => {
    await server.close();
    rmSync(root, { recursive: true });
  });
  beforeEach(async () => {
    recorder = new Recorder(BASE, { dir: join(root, 'kept'), everyVersions: 2 });
    proxy = await RecordingProxy.start(server.serving, recorder);
  });
  afterEach(() => proxy.close());

  const post = (path: string, body: string) =>
    fetch(proxy.url + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body });

  it('finds every answer to be of what its request named', async () => {
    for (const name of ['pirate', 'sql']) {
      await post('/v1/load_lora_adapter', loadOf(`${name}-v1`, join(root, name)));
      const reply = await post('/v1/completions', completionOf(`${name}-v1`));
      expect(await reply.json()).toMatchObject({ lora: { name: `${name}-v1` } });
      expect(reply.headers.get('x-lora-revision')).toMatch(/^sha256:/);
    }
    await post('/v1/completions', completionOf(BASE));
    const { samples, ...recording } = await recorder.recording();
    expect(recording).toMatchObject({ ofVersions: 2, ofBase: 1, versions: 2, wrong: 0, refused: new Map() });
    const [adapterDir, version] = [join(root, 'kept/pirate-v1'), 'pirate-v1'];
    expect(samples).toMatchObject([{ version, adapterDir, temperature: 0.7, prompt: [0] }]);
    expect((await readdir(adapterDir)).sort()).toEqual((await readdir(dirOf('pirate'))).sort());
    expect(samples[0]?.logprobs).toHaveLength(samples[0]?.tokens.length ?? 0);
  });

  it('passes refusals on and counts them', async () => {
    const reply = await post('/v1/completions', completionOf('nobody'));
    expect([reply.status, await reply.json()]).toMatchObject([404, { error: { code: 404 } }]);
    await post('/v1/load_lora_adapter', loadOf('gone-v1', join(root, 'gone')));
    expect(await recorder.recording()).toMatchObject({
      ofVersions: 0,
      versions: 0,
      refused: new Map([[404, 2]]),
    });
  });

  it('says that the server is away, and passes on the next request', async () => {
    const away = await RecordingProxy.start('http://127.0.0.1:1', recorder);
    expect((await fetch(away.url)).status).toBe(502);
    await away.close();
    expect((await fetch(`${proxy.url}/health`)).status).toBe(200);
  });
});

describe('an answer that is not of what was named', () => {
  let kept: string;
  let recorder: Recorder;
  beforeEach(() => {
    kept = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
    recorder = new Recorder(BASE, { dir: kept, everyVersions: 1 });
    recorder.asked('/v1/load_lora_adapter', loadOf('v1', dirOf('pirate')))(reply(null, null));
  });

  afterEach(async () => {
    await recorder.recording();
    rmSync(kept, { recursive: true });
  });

  const reply = (revision: string | null, lora: object | null): Reply => {
    const choices = [{ token_ids: [5], logprobs: { token_logprobs: [-1] } }];
    return { status: 200, revision, body: JSON.stringify({ lora, choices }), ms: 1 };
  };
  const lora = (revision: string, ...more: string[]) => ({
    name: 'v1',
    revision,
    spans: [revision, ...more].map((one, from) => ({ from, revision: one })),
  });
  const wrongAfter = async (model: string, answer: Reply) => {
    recorder.asked('/v1/completions', completionOf(model))(answer);
    return (await recorder.recording()).wrong;
  };

  it.each<[string, string, string | null, object | null, number]>([
    ['none: it is the right one', 'v1', PIRATE, lora(PIRATE), 0],
    ['none: it is the base', BASE, null, null, 0],
    ['its revision', 'v1', OTHER, lora(OTHER), 1],
    ['its header', 'v1', OTHER, lora(PIRATE), 1],
    ['its body', 'v1', PIRATE, lora(OTHER), 1],
    ['a part of its tokens', 'v1', PIRATE, lora(PIRATE, OTHER), 1],
    ['its name', 'v1', PIRATE, { ...lora(PIRATE), name: 'v2' }, 1],
    ['the base answers for the adapter', 'v1', null, null, 1],
    ['an adapter answers for the base', BASE, PIRATE, lora(PIRATE), 1],
    ['nothing was loaded under the name', 'v2', PIRATE, { ...lora(PIRATE), name: 'v2' }, 1],
  ])('%s', async (_, model, revision, told, wrong) => {
    expect(await wrongAfter(model, reply(revision, told))).toBe(wrong);
  });

  it('is one that cannot be read', async () => {
    expect(await wrongAfter('v1', { ...reply(PIRATE, null), body: '{}' })).toBe(1);
  });

  it('is not in the samples', async () => {
    await wrongAfter('v1', reply(OTHER, lora(OTHER)));
    await wrongAfter('v1', reply(PIRATE, lora(PIRATE)));
    const { samples, faults } = await recorder.recording();
    expect(samples.map(({ tokens }) => tokens)).toEqual([[5]]);
    expect(faults).toEqual([`v1: expected ${PIRATE} but received ${OTHER}`]);
  });
});
