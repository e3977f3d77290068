import { describe, expect, it } from 'vitest';
import { HostTier } from '../../../server/adapters/host-tier.ts';
import type { ReceivedAdapter } from '../../../server/adapters/receive.ts';
import { Receiver } from '../../../server/adapters/receive.ts';
import { hashHere } from '../../../server/transfer/hash-thread.ts';
import { type BrokenAdapter, brokenAdapters } from '../../support/broken-adapters.ts';
import { PARROT_GEOMETRY } from '../../support/parrot-geometry.ts';
import { refusalIn } from '../contract/refusal.ts';

const ADAPTERS = brokenAdapters();
// Their bytes are wrong, not their headers: the engine finds them.
const FOUND_IN_ENGINE = ['nan', 'infinite', 'zero-effect'];
const LIMITS = { geometry: PARROT_GEOMETRY, maxRank: 64, maxAdapterBytes: 1 << 23 };

async function receive({ tensors, config }: BrokenAdapter, chunkBytes: number): Promise<ReceivedAdapter> {
  const tier = new HostTier(1 << 24, { droppable: () => () => false, dropped: () => {} });
  const configHeader = config.length > 0 ? config.toString('base64url') : '';
  const contentLength = tensors.length;
  const receiver = new Receiver({
    tier,
    allocate: Buffer.allocUnsafeSlow,
    hash: hashHere(),
    limits: LIMITS,
    configHeader,
    contentLength,
  });
  try {
    for (let at = 0; at < tensors.length; at += chunkBytes)
      receiver.push(tensors.subarray(at, at + chunkBytes));
    return await receiver.finish();
  } catch (error) {
    receiver.abort();
    expect(tier.usedBytes).toBe(0);
    throw error;
  }
}

describe('broken adapters', () => {
  it('are 65 and a right one', () => {
    expect(new Set(ADAPTERS.map(({ name }) => name)).size).toBe(66);
  });

  it.each(ADAPTERS.filter(({ name }) => name !== 'none' && !FOUND_IN_ENGINE.includes(name)))(
    'refuses $name: $what',
    async (adapter) => {
      const refusal = await refusalIn(receive(adapter, 64 << 10));
      const text = JSON.stringify(refusal);
      for (const word of adapter.say) expect(text).toContain(word);
      expect(refusal.status).toBeGreaterThanOrEqual(400);
      expect(refusal.status).toBeLessThan(500);
      expect(text.length).toBeLessThan(1500);
    },
  );

  it.each(ADAPTERS.filter(({ name }) => [...FOUND_IN_ENGINE, 'none'].includes(name)))(
    'binds $name',
    async (adapter) => {
      expect((await receive(adapter, 64 << 10)).incoming.bound.modules).toHaveLength(8);
    },
  );

  it('come to the same verdict byte by byte', async () => {
    for (const adapter of ADAPTERS.filter(({ name }) => /^(file|none|shape-in)/.test(name))) {
      const verdict = (chunkBytes: number) =>
        receive(adapter, chunkBytes).then(({ incoming }) => incoming.digest, JSON.stringify);
      expect(await verdict(1)).toBe(await verdict(1 << 20));
    }
  });
});
