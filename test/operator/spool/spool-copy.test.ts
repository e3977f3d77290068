import { createHash } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Log } from '../../../operator/kube/log.ts';
import { Spool } from '../../../operator/spool/spool.ts';
import { SpoolCopy } from '../../../operator/spool/spool-copy.ts';
import type { SpoolWriter } from '../../../operator/spool/spool-writer.ts';
import { revisionDigest } from '../../../server/contract/digest.ts';

const BLOCK_BYTES = 1 << 20;
const CONFIG = { r: 8 };
const blocks = Array.from({ length: 6 }, (_, index) => Buffer.alloc(BLOCK_BYTES, index));
const tensorsSha256 = createHash('sha256').update(Buffer.concat(blocks)).digest('hex');
const digest = revisionDigest(CONFIG, tensorsSha256);

let dir: string;
const warnings: string[] = [];
const log = { warn: (_: object, message: string) => warnings.push(message) } as unknown as Log;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'lorikeet-spool-'));
  warnings.length = 0;
});
afterEach(() => rm(dir, { recursive: true, force: true }));

/** A spool on a disk that writes nothing until it is let go. */
function slowSpool(maxBytes = 64 << 20): { spool: Spool; letGo: () => void } {
  const spool = new Spool({ dir, maxBytes });
  const { promise: gate, resolve } = Promise.withResolvers<void>();
  const begin = spool.begin.bind(spool);
  spool.begin = (options): SpoolWriter => {
    const writer = begin(options);
    const write = writer.write.bind(writer);
    writer.write = async (...chunks) => {
      await gate;
      await write(...chunks);
    };
    return writer;
  };
  return { spool, letGo: () => resolve() };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('the copy of a push in the spool', () => {
  it('is behind a slow disk by some blocks, then the trainer waits; it has them all in the end', async () => {
    const { spool, letGo } = slowSpool();
    const copy = new SpoolCopy(spool, log);
    let taken = 0;
    const writing = (async () => {
      for (const block of blocks) {
        await copy.write(block);
        taken += 1;
      }
    })();
    await turn();
    expect(taken).toBe(4);
    letGo();
    await writing;
    await copy.commit(digest, { config: CONFIG, tensorsSha256 });
    const read: Uint8Array[] = [];
    for await (const chunk of spool.open(digest)?.stream() ?? []) read.push(chunk);
    expect(Buffer.concat(read).equals(Buffer.concat(blocks))).toBe(true);
  });

  it('given up while the disk is at work, leaves neither a file nor taken room', async () => {
    const { spool, letGo } = slowSpool();
    const copy = new SpoolCopy(spool, log);
    await copy.write(blocks[0] as Buffer);
    await copy.write(blocks[1] as Buffer);
    const aborting = copy.abort();
    letGo();
    await aborting;
    expect([spool.usedBytes, await readdir(join(dir, 'v1', 'tmp')), warnings]).toEqual([0, [], []]);
  });

  it('that does not fit is given up with a word, and holds nobody up', async () => {
    const { spool, letGo } = slowSpool(2 * BLOCK_BYTES);
    letGo();
    const copy = new SpoolCopy(spool, log);
    for (const block of blocks) await copy.write(block);
    await copy.commit(digest, { config: CONFIG, tensorsSha256 });
    expect([spool.list(), spool.usedBytes, warnings]).toEqual([[], 0, ['the spool keeps no copy of a push']]);
  });
});
