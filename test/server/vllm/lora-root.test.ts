import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PARROT, type ParrotServer, startParrot } from '../../support/parrot-server.ts';

const PIRATE = join(PARROT, 'adapters/pirate');
const CONFIG = 'adapter_config.json';
const TENSORS = 'adapter_model.safetensors';

let folder: string;
let root: string;
let server: ParrotServer;

/** A folder below the root, with only some of an adapter's files. */
function make(name: string, files: string[] = [CONFIG, TENSORS]): string {
  const dir = join(root, name);
  mkdirSync(dir);
  for (const file of files) cpSync(join(PIRATE, file), join(dir, file));
  return dir;
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
  root = join(folder, 'real');
  mkdirSync(root);
  symlinkSync(root, join(folder, 'root'));
  cpSync(PIRATE, join(folder, 'real-too'), { recursive: true });
  make('good');
  symlinkSync('good', join(root, 'link-within'));
  symlinkSync(join(folder, 'real-too'), join(root, 'link-out'));
  symlinkSync(PIRATE, join(make('nested', []), 'link'));
  symlinkSync(join(PIRATE, TENSORS), join(make('file-link-out', [CONFIG]), TENSORS));
  symlinkSync(join(root, 'good', TENSORS), join(make('file-link-within', [CONFIG]), TENSORS));
  symlinkSync('loop', join(root, 'loop'));
  writeFileSync(join(make('pickle', [CONFIG]), 'adapter_model.bin'), 'no pickle at all');
  make('no-config', [TENSORS]);
  make('no-tensors', [CONFIG]);
  mkdirSync(join(make('folder-as-file', [CONFIG]), TENSORS));
  execFileSync('mkfifo', [join(make('pipe', [CONFIG]), TENSORS)]);
  truncateSync(join(make('huge'), TENSORS), 600 << 20);
  truncateSync(join(make('huge-config'), CONFIG), 8 << 20);
  truncateSync(join(make('cut-off'), TENSORS), 100_000);
  server = await startParrot(['--vllm-api', '--lora-root', join(folder, 'root'), '--max-rank', '32']);
});
afterAll(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

const load = (path: string) =>
  server.post('/v1/load_lora_adapter', { lora_name: 'bird', lora_path: path, load_inplace: true });
const fill = (path: string) => path.replace('FOLDER', folder);

describe('an adapter is loaded from', () => {
  it.each(['FOLDER/real/good', 'FOLDER/root/good', 'good', 'link-within', 'file-link-within'])(
    '%s',
    async (path) => {
      const { status, body } = await load(fill(path));
      expect([status, body]).toEqual([200, "Success: LoRA adapter 'bird' added successfully."]);
    },
  );
});

describe('no adapter is loaded from', () => {
  const OUTSIDE = /^Expected a folder of files below --lora-root for lora_path but received "/;
  const NOT_FOUND = /^No adapter found for "/;
  const PICKLED = /: pickled tensors are not read$/;
  it.each<[path: string, status: number, type: string, says: RegExp]>([
    ['../real-too', 400, 'InvalidUserInput', OUTSIDE],
    ['FOLDER/root/../real-too', 400, 'InvalidUserInput', OUTSIDE],
    ['FOLDER/real-too', 400, 'InvalidUserInput', OUTSIDE],
    ['FOLDER/nowhere', 400, 'InvalidUserInput', OUTSIDE],
    [PIRATE, 400, 'InvalidUserInput', OUTSIDE],
    ['link-out', 400, 'InvalidUserInput', OUTSIDE],
    ['nested/link', 400, 'InvalidUserInput', OUTSIDE],
    ['nested/link/../sql', 404, 'NotFoundError', NOT_FOUND],
    ['file-link-out', 400, 'InvalidUserInput', OUTSIDE],
    ['good\0', 400, 'InvalidUserInput', OUTSIDE],
    ['x'.repeat(5000), 400, 'InvalidUserInput', OUTSIDE],
    ['x'.repeat(300), 404, 'NotFoundError', NOT_FOUND],
    ['folder-as-file', 400, 'InvalidUserInput', OUTSIDE],
    ['pipe', 400, 'InvalidUserInput', OUTSIDE],
    ['nowhere', 404, 'NotFoundError', NOT_FOUND],
    ['loop', 404, 'NotFoundError', NOT_FOUND],
    ['good/adapter_model.safetensors', 404, 'NotFoundError', NOT_FOUND],
    ['no-config', 404, 'NotFoundError', NOT_FOUND],
    ['no-tensors', 404, 'NotFoundError', NOT_FOUND],
    ['pickle', 400, 'InvalidUserInput', PICKLED],
    ['pickle/adapter_model.bin', 400, 'InvalidUserInput', PICKLED],
    ['huge', 400, 'BadRequestError', /^Expected at most 536870912 bytes for body but received 629145600$/],
    ['huge-config', 400, 'BadRequestError', /^Expected at most \d+ bytes for body but received 8388608$/],
    ['cut-off', 400, 'BadRequestError', /./],
  ])('%j', async (path, status, type, says) => {
    const before = (await server.get('/v1/models')).body;
    const reply = await load(fill(path));
    expect(reply).toMatchObject({ status, body: { error: { type, code: status } } });
    expect(reply.body.error.message).toMatch(says);
    expect((await server.get('/v1/models')).body).toEqual(before);
  });
});
