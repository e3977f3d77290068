import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { putDirectory } from '../../../server/adapters/load-directory.ts';
import { filesIn } from '../../../server/transfer/adapter-folder.ts';
import { digestOf, goodAdapter, goodTensors, packSafetensors } from '../../support/adapter-files.ts';
import { ADAPTER_BYTES, bench, MAX_ADAPTER_BYTES } from './bench.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

function save({ tensors, config }: { tensors: Buffer; config: Buffer }): void {
  writeFileSync(join(dir, 'adapter_config.json'), config);
  writeFileSync(join(dir, 'adapter_model.safetensors'), tensors);
}

it('a directory is served under its name', async () => {
  const { registry } = bench();
  save(goodAdapter());
  const { revision } = await putDirectory(registry, 'sql', filesIn(dir));
  expect(revision).toBe(digestOf(goodAdapter()));
  expect(registry.lookup.models()).toMatchObject([{ name: 'sql', revision, bytes: ADAPTER_BYTES }]);
});

it('a file of several chunks keeps its bytes', async () => {
  const { registry } = bench({ room: 100 });
  const { config } = goodAdapter();
  const padded = packSafetensors(goodTensors(), (entries) => JSON.stringify(entries).padEnd(1_000_000));
  save({ tensors: padded, config });
  const { revision, bytes } = await putDirectory(registry, 'sql', filesIn(dir));
  expect([revision, bytes > 1 << 20]).toEqual([digestOf({ tensors: padded, config }), true]);
});

it('a file that is cut off is refused, and its room given back', async () => {
  const { registry } = bench();
  const { tensors, config } = goodAdapter();
  save({ config, tensors: tensors.subarray(0, -1) });
  await expect(putDirectory(registry, 'sql', filesIn(dir))).rejects.toMatchObject({
    code: 'malformed_safetensors',
  });
  expect(registry.state()).toMatchObject({ adapters: [], used: { hostBytes: 0 } });
});

it('a file that is too large is refused', async () => {
  const { registry } = bench();
  save(goodAdapter());
  truncateSync(join(dir, 'adapter_model.safetensors'), MAX_ADAPTER_BYTES + 1);
  await expect(putDirectory(registry, 'sql', filesIn(dir))).rejects.toMatchObject({ code: 'body_too_large' });
});
