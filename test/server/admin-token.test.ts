import { chmodSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { adminToken } from '../../server/admin-token.ts';

const GOOD = 'a-token-for-tests-only';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
  path = join(folder, 'token');
});
afterEach(() => rmSync(folder, { recursive: true }));

function write(text: string, mode = 0o600): void {
  writeFileSync(path, text);
  chmodSync(path, mode);
}

describe('a token file', () => {
  it.each([0o400, 0o440, 0o600, 0o640])('of mode %o is not doubted', async (mode) => {
    write(GOOD, mode);
    expect((await adminToken(path)).doubts).toEqual([]);
  });

  it.each([
    [0o644, '0644'],
    [0o620, '0620'],
    [0o602, '0602'],
  ])('of mode %o is doubted', async (mode, text) => {
    write(GOOD, mode);
    expect((await adminToken(path)).doubts).toEqual([
      `${path} has mode ${text}: others may read or change it. chmod 0440 it, or give the Secret's volume defaultMode: 0440`,
    ]);
  });

  it('of one character is doubted', async () => {
    write('x');
    expect((await adminToken(path)).doubts).toEqual([
      `${path} holds 1 characters: expected at least 16, as of openssl rand -hex 32`,
    ]);
  });

  it('is read again when it changes', async () => {
    write(GOOD);
    const token = await adminToken(path);
    expect(await token.current()).toBe(GOOD);
    write('another-token-for-tests');
    expect(await token.current()).toBe('another-token-for-tests');
  });

  it('is read again when Kubernetes swaps the folder of a Secret', async () => {
    for (const [name, value] of [
      ['..1', GOOD],
      ['..2', GOOD.toUpperCase()],
    ] as const) {
      path = join(folder, name);
      write(value);
    }
    symlinkSync('..1', join(folder, '..data'));
    const token = await adminToken(join(folder, '..data'));
    expect(await token.current()).toBe(GOOD);
    symlinkSync('..2', join(folder, '..data_tmp'));
    renameSync(join(folder, '..data_tmp'), join(folder, '..data'));
    expect(await token.current()).toBe(GOOD.toUpperCase());
  });

  it('keeps its last token while there is none', async () => {
    write(GOOD);
    const token = await adminToken(path);
    write('');
    expect(await token.current()).toBe(GOOD);
    rmSync(path);
    expect(await token.current()).toBe(GOOD);
    write('another-token-for-tests');
    expect(await token.current()).toBe('another-token-for-tests');
  });
});
