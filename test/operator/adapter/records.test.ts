import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Records } from '../../../operator/adapter/records.ts';
import type { RevisionRecord } from '../../../operator/api/lora-adapter.ts';
import { Spool } from '../../../operator/spool/spool.ts';
import { revisionDigest } from '../../../server/contract/digest.ts';
import { Serial } from '../../../server/transfer/serial.ts';

const KEY = 'lora/sql';
const REVISION_BYTES = 1_000;
const HELD = 4;

let dir: string;
let spool: Spool;
let records: Records;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
  spool = new Spool({ dir, maxBytes: HELD * REVISION_BYTES });
  records = new Records();
});

afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Fails where the spool is full of what is pinned. */
async function revision(fill: number): Promise<RevisionRecord> {
  const bytes = Buffer.alloc(REVISION_BYTES, fill);
  const digest = revisionDigest(null, createHash('sha256').update(bytes).digest('hex'));
  const writer = spool.begin();
  await writer.write(bytes);
  await writer.commit(digest, { config: null, step: null });
  const about = { short: digest.slice(7, 19), step: null, rank: 8, targetModules: [], at: '' };
  return { digest, bytes: bytes.length, ...about };
}

describe('an object that is made again under one name', () => {
  it('leaves nothing of the earlier one pinned in the spool', async () => {
    let last = '';
    for (let made = 0; made < 3 * HELD; made += 1) {
      const record = records.of(KEY, `uid-${made}`, spool);
      const desired = await revision(made);
      record.recover({ desiredRevision: desired }, null, spool);
      last = desired.digest;
    }
    for (let other = 0; other < HELD - 1; other += 1) await revision(100 + other);
    expect(spool.has(last)).toBe(true);
  });

  it('is not in the way of what was still being brought for the earlier one', async () => {
    const earlier = records.of(KEY, 'uid-0', spool);
    records.of(KEY, 'uid-1', spool);
    const late = await revision(0);
    await new Serial().run(KEY, async (lock) => earlier.adopt(lock, late, { keep: 2, spool }));
    for (let other = 0; other < HELD; other += 1) await revision(100 + other);
    expect(spool.has(late.digest)).toBe(false);
  });

  it('is given a later sequence', () => {
    const earlier = records.of(KEY, 'uid-0', spool);
    expect(records.of(KEY, 'uid-1', spool).sequence).toBeGreaterThan(earlier.sequence);
  });
});

describe('an object that is gone', () => {
  it('leaves nothing pinned, also where its revision comes late', async () => {
    const record = records.of(KEY, 'uid-0', spool);
    const early = await revision(0);
    record.recover({ desiredRevision: early }, null, spool);
    records.forget(KEY, spool);
    const late = await revision(1);
    await new Serial().run(KEY, async (lock) => record.adopt(lock, late, { keep: 2, spool }));
    for (let other = 0; other < HELD; other += 1) await revision(100 + other);
    expect([early, late].map(({ digest }) => spool.has(digest))).toEqual([false, false]);
  });
});
