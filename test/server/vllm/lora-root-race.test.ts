import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { LoraRoot } from '../../../server/vllm/lora-root.ts';

vi.mock('node:fs/promises', async (original) => {
  const actual = await original<typeof import('node:fs/promises')>();
  return { ...actual, realpath: vi.fn(actual.realpath) };
});

it('a folder that becomes a link out after it was looked at is not read through', async () => {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'lorikeet-test-')));
  const dir = join(folder, 'root');
  mkdirSync(dir);
  writeFileSync(join(folder, 'adapter_config.json'), 'a secret');
  symlinkSync('..', join(dir, 'adapter'));
  const root = await LoraRoot.at(dir);
  vi.mocked(realpath).mockResolvedValueOnce(join(dir, 'adapter/adapter_config.json'));
  await expect(root.filesOf('adapter')('adapter_config.json')).rejects.toMatchObject({
    message: expect.stringContaining('Expected a folder of files below --lora-root'),
  });
  rmSync(folder, { recursive: true });
});
