import { createHash } from 'node:crypto';
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Spool } from '../../../operator/spool/spool.ts';
import { revisionDigest } from '../../../server/contract/digest.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'lorikeet-spool-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const open = (maxBytes = 1_000_000) => new Spool({ dir, maxBytes });
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const bytesOf = (fill: number, length = 1000) => Buffer.alloc(length, fill);
const config = { r: 8, nested: { b: 1, a: [1.5, null] } };
const digestOf = (bytes: Uint8Array) => revisionDigest(config, sha256(bytes));
const pathOf = (digest: string) => join(dir, 'v1', 'sha256', digest.slice(7, 9), digest.slice(9));

async function add(spool: Spool, bytes: Uint8Array): Promise<string> {
  const writer = spool.begin();
  await writer.write(bytes);
  const digest = digestOf(bytes);
  await writer.commit(digest, { config, step: 3 });
  return digest;
}

async function read(spool: Spool, digest: string): Promise<Buffer | null> {
  const revision = spool.open(digest);
  if (revision === null) return null;
  const parts: Uint8Array[] = [];
  for await (const part of revision.stream()) parts.push(part);
  return Buffer.concat(parts);
}

async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name);
}

describe('a spool', () => {
  it('gives back what was written, before and after a restart', async () => {
    const bytes = bytesOf(1, 700_001);
    const digest = await add(open(), bytes);
    for (const spool of [open(), open()]) {
      expect(await read(spool, digest)).toEqual(bytes);
      expect(spool.open(digest)).toMatchObject({ config, step: 3, size: bytes.length });
      expect(spool.usedBytes).toBe(bytes.length);
    }
  });

  it('forgets the least recently used first, and remembers what was used across a restart', async () => {
    const first = open(3000);
    const tick = () => new Promise((resolve) => setTimeout(resolve, 15)); // file times are that coarse
    const a = await add(first, bytesOf(1));
    await tick();
    const b = await add(first, bytesOf(2));
    await tick();
    const c = await add(first, bytesOf(3));
    await tick();
    first.open(a);
    const second = open(3000);
    expect(second.list().at(-1)).toBe(a);
    const d = await add(second, bytesOf(4));
    expect(second.list().sort()).toEqual([a, c, d].sort());
    expect(await read(second, b)).toBe(null);
    expect(second.usedBytes).toBe(3000);
  });

  it('keeps what any owner pins, and refuses what finds no room', async () => {
    const spool = open(2000);
    const [a, b] = [await add(spool, bytesOf(1)), await add(spool, bytesOf(2))];
    spool.pin(a, 'ns/one');
    spool.pin(a, 'ns/one');
    spool.pin(a, 'ns/two');
    spool.pin(b);
    expect([spool.pinnedBytes, spool.maxBytes]).toEqual([2000, 2000]);
    const writer = spool.begin();
    await expect(writer.write(bytesOf(3))).rejects.toMatchObject({ code: 'full' });
    await writer.abort();
    spool.unpin(a, 'ns/one');
    await expect(spool.begin().write(bytesOf(3))).rejects.toMatchObject({ code: 'full' });
    spool.unpin(a, 'ns/two');
    expect(spool.pinnedBytes).toBe(1000);
    await add(spool, bytesOf(3));
    expect([spool.has(a), spool.has(b), spool.usedBytes]).toEqual([false, true, 2000]);
  });

  it('shrinks to its size at start', async () => {
    const digest = await add(open(), bytesOf(1));
    const latest = await add(open(), bytesOf(2));
    expect([open(1500).has(digest), open(1500).has(latest)].filter(Boolean)).toHaveLength(1);
    expect(open(10).list()).toEqual([]);
  });

  it('takes a revision twice as one', async () => {
    const spool = open();
    const digest = await add(spool, bytesOf(1));
    await add(spool, bytesOf(1));
    expect([spool.list(), spool.usedBytes]).toEqual([[digest], 1000]);
  });

  it('refuses a commit under another digest', async () => {
    const spool = open();
    const writer = spool.begin();
    await writer.write(bytesOf(1));
    await expect(writer.commit(digestOf(bytesOf(2)), { config })).rejects.toMatchObject({
      code: 'not_this_digest',
    });
    expect([spool.list(), spool.usedBytes, await filesIn(dir)]).toEqual([[], 0, []]);
  });

  it('trusts a hash made elsewhere only as far as the digest, and notices when it was wrong', async () => {
    const spool = open();
    const right = spool.begin({ hash: false });
    await right.write(bytesOf(1));
    await right.commit(digestOf(bytesOf(1)), { config, tensorsSha256: sha256(bytesOf(1)) });
    expect(await read(spool, digestOf(bytesOf(1)))).toEqual(bytesOf(1));
    const wrong = spool.begin({ hash: false });
    await wrong.write(bytesOf(9));
    await wrong.commit(digestOf(bytesOf(2)), { config, tensorsSha256: sha256(bytesOf(2)) });
    await expect(read(spool, digestOf(bytesOf(2)))).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('leaves no file open of a writer that was aborted amid its first write', async () => {
    const writer = open().begin();
    const writing = writer.write(bytesOf(1)).catch(() => undefined);
    await writer.abort();
    await writing;
    const inUse = (await readdir('/proc/self/fd')).map((fd) =>
      readlink(`/proc/self/fd/${fd}`).catch(() => ''),
    );
    expect((await Promise.all(inUse)).filter((path) => path.startsWith(dir))).toEqual([]);
    expect(await filesIn(dir)).toEqual([]);
  });

  it('leaves nothing of an aborted writer, nor of one that a crash cut off', async () => {
    const spool = open();
    const aborted = spool.begin();
    await aborted.write(bytesOf(1));
    await aborted.abort();
    await aborted.abort();
    expect([spool.usedBytes, await filesIn(dir)]).toEqual([0, []]);
    await spool.begin().write(bytesOf(1));
    expect(await filesIn(dir)).toHaveLength(1);
    expect([open().usedBytes, await filesIn(dir)]).toEqual([0, []]);
  });

  it('is private', async () => {
    const digest = await add(open(), bytesOf(1));
    const modes = await Promise.all(
      [
        join(dir, 'v1'),
        join(dir, 'v1', 'tmp'),
        join(pathOf(digest), '..'),
        pathOf(digest),
        `${pathOf(digest)}.json`,
      ].map(async (path) => ((await stat(path)).mode & 0o777).toString(8)),
    );
    expect(modes).toEqual(['700', '700', '700', '600', '600']);
  });

  it('refuses a folder that others can write to, or a link in its place', async () => {
    await mkdir(join(dir, 'v1'));
    await chmod(join(dir, 'v1'), 0o777);
    expect(() => open()).toThrow('0700');
    await rename(join(dir, 'v1'), join(dir, 'elsewhere'));
    await chmod(join(dir, 'elsewhere'), 0o700);
    await symlink(join(dir, 'elsewhere'), join(dir, 'v1'));
    expect(() => open()).toThrow('0700');
  });

  it.each([
    ['one byte changed', async (path: string) => writeFile(path, bytesOf(7)), 'corrupt'],
    ['a symbolic link', swapForLink, 'gone'],
    ['missing', async (path: string) => rm(path), 'gone'],
    ['cut short', async (path: string) => truncate(path, 10), 'corrupt'],
  ])('never gives a whole file that is wrong: %s', async (_, spoil, code) => {
    const spool = open();
    const digest = await add(spool, bytesOf(1));
    await spoil(pathOf(digest));
    const seen: Uint8Array[] = [];
    const reading = (async () => {
      for await (const part of spool.open(digest)?.stream() ?? []) seen.push(part);
    })();
    await expect(reading).rejects.toMatchObject({ code });
    expect(seen).toEqual([]);
    expect([spool.has(digest), spool.usedBytes]).toEqual([false, 0]);
  });

  it.each([
    ['config of another revision', async (path: string) => changeMeta(path, { config: { r: 9 } })],
    ['wrong hash', async (path: string) => changeMeta(path, { tensorsSha256: '0'.repeat(64) })],
    ['wrong size', async (path: string) => changeMeta(path, { size: 999 })],
    ['no JSON', async (path: string) => writeFile(`${path}.json`, '{')],
    ['no meta file', async (path: string) => rm(`${path}.json`)],
    ['no tensors', async (path: string) => rm(path)],
    ['a link for tensors', swapForLink],
  ])('drops at start what is not consistent: %s', async (_, spoil) => {
    const digest = await add(open(), bytesOf(1));
    const other = await add(open(), bytesOf(2));
    await spoil(pathOf(digest));
    const spool = open();
    expect([spool.list(), spool.usedBytes]).toEqual([[other], 1000]);
    expect((await filesIn(join(dir, 'v1'))).sort()).toEqual(
      [other.slice(9), `${other.slice(9)}.json`].sort(),
    );
  });

  it('makes no path of anything but a digest', async () => {
    const spool = open();
    for (const name of ['../../etc/passwd', 'sha256:../..', `sha256:${'A'.repeat(64)}`, '__proto__', '']) {
      expect([spool.has(name), spool.open(name)]).toEqual([false, null]);
      await expect(spool.begin().commit(name, { config })).rejects.toThrow();
    }
  });

  it('never holds more than its size, nor loses what is pinned, whatever happens', {
    timeout: 30_000,
  }, async () => {
    const step = fc.record({
      action: fc.constantFrom('add', 'pin', 'unpin', 'open', 'abort', 'restart'),
      which: fc.integer({ min: 0, max: 7 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        await rm(dir, { recursive: true, force: true });
        let spool = open(3500);
        const pinned = new Set<string>();
        const held = new Set<string>();
        for (const { action, which } of steps) {
          const bytes = bytesOf(which, 500 + which * 100);
          const digest = digestOf(bytes);
          if (action === 'add' && (await add(spool, bytes).catch(() => null))) held.add(digest);
          if (action === 'pin' && spool.has(digest)) pinned.add(digest);
          if (action === 'pin') spool.pin(digest);
          if (action === 'unpin') {
            pinned.delete(digest);
            spool.unpin(digest);
          }
          if (action === 'open') expect((await read(spool, digest)) ?? bytes).toEqual(bytes);
          if (action === 'abort') {
            const writer = spool.begin();
            await writer.write(bytes).catch(() => undefined);
            await writer.abort();
          }
          if (action === 'restart') {
            spool = open(3500);
            for (const kept of pinned) spool.pin(kept);
          }
          expect(spool.usedBytes).toBeLessThanOrEqual(3500);
          expect([...pinned].filter((kept) => !spool.has(kept))).toEqual([]);
          expect(spool.list().filter((kept) => !held.has(kept))).toEqual([]);
        }
        const sizes = await Promise.all(
          spool.list().map(async (digest) => (await read(spool, digest))?.length ?? 0),
        );
        expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(spool.usedBytes);
      }),
      { numRuns: 40 },
    );
  });
});

async function swapForLink(path: string): Promise<void> {
  await rename(path, join(dir, 'target'));
  await symlink(join(dir, 'target'), path);
}

async function changeMeta(path: string, change: object): Promise<void> {
  const meta = JSON.parse(await readFile(`${path}.json`, 'utf8'));
  await writeFile(`${path}.json`, JSON.stringify({ ...meta, ...change }));
}
