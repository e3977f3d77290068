import { describe, expect, it } from 'vitest';
import { LabelSelector, matchesSelector } from '../../../operator/api/label-selector.ts';
import {
  type LoraAdapter,
  LoraAdapterSpec,
  servedNameOf,
  shortDigest,
} from '../../../operator/api/lora-adapter.ts';
import { durationMs, Quantity, quantityBytes, Replicas, replicasOf } from '../../../operator/api/quantity.ts';
import { adapterManifest } from './objects.ts';

describe('replicasOf', () => {
  it.each([
    [0, 0],
    [7, 7],
    ['0%', 0],
    ['1%', 1],
    ['50%', 3],
    ['60%', 3],
    ['61%', 4],
    ['100%', 5],
  ])('makes of %s of five pods %i', (replicas, pods) => {
    expect(replicasOf(Replicas.parse(replicas), 5)).toBe(pods);
  });

  it.each([-1, 1.5, '', '50', '101%', '-1%', '05%', '5.5%'])('has none for %j', (replicas) => {
    expect(Replicas.safeParse(replicas).success).toBe(false);
  });
});

describe('quantityBytes', () => {
  const cases: [string | number, number][] = [
    [1, 1],
    ['1024', 1024],
    ['512Mi', 536_870_912],
    ['1.5Gi', 1_610_612_736],
    ['0.3k', 300],
    ['2T', 2_000_000_000_000],
    ['0.0001Ki', 1],
  ];
  for (const [quantity, bytes] of cases) {
    it(`reads ${quantity} as ${bytes}`, () => {
      expect(quantityBytes(Quantity.parse(quantity))).toBe(bytes);
    });
  }

  for (const quantity of ['', '1 Mi', '1mi', '-1', '1e3', '0', '9999999Ti', Number.NaN, 0, -5]) {
    it(`refuses ${JSON.stringify(quantity)}`, () => {
      expect(() => quantityBytes(quantity)).toThrow(RangeError);
    });
  }
});

describe('durationMs', () => {
  const cases: [string, number][] = [
    ['500ms', 500],
    ['60s', 60_000],
    ['1.5h', 5_400_000],
    ['1h30m', 5_400_000],
    ['0s', 0],
  ];
  for (const [duration, ms] of cases) {
    it(`reads ${duration} as ${ms} ms`, () => {
      expect(durationMs(duration)).toBe(ms);
    });
  }

  for (const duration of ['', '60', 's', '-1s', '1d', '1s ']) {
    it(`refuses "${duration}"`, () => {
      expect(() => durationMs(duration)).toThrow(RangeError);
    });
  }
});

describe('matchesSelector', () => {
  const labels = { app: 'llama', tier: 'gold' };
  const cases: [string, LabelSelector, boolean][] = [
    ['a label with the value', { matchLabels: { app: 'llama' } }, true],
    ['a label with another value', { matchLabels: { app: 'qwen' } }, false],
    ['a label that is absent', { matchLabels: { zone: '' } }, false],
    ['In', { matchExpressions: [{ key: 'tier', operator: 'In', values: ['gold', 'tin'] }] }, true],
    ['In, absent', { matchExpressions: [{ key: 'zone', operator: 'In', values: ['gold'] }] }, false],
    ['NotIn', { matchExpressions: [{ key: 'tier', operator: 'NotIn', values: ['gold'] }] }, false],
    ['NotIn, absent', { matchExpressions: [{ key: 'zone', operator: 'NotIn', values: ['gold'] }] }, true],
    ['Exists', { matchExpressions: [{ key: 'tier', operator: 'Exists' }] }, true],
    [
      'Exists, by a name that every object has',
      { matchExpressions: [{ key: 'constructor', operator: 'Exists' }] },
      false,
    ],
    ['DoesNotExist', { matchExpressions: [{ key: 'tier', operator: 'DoesNotExist' }] }, false],
    [
      'all of several',
      { matchLabels: { app: 'llama' }, matchExpressions: [{ key: 'tier', operator: 'In', values: ['tin'] }] },
      false,
    ],
  ];
  for (const [name, selector, expected] of cases) {
    it(`decides ${name}`, () => {
      expect(matchesSelector(LabelSelector.parse(selector), labels)).toBe(expected);
    });
  }
});

describe('LoraAdapter', () => {
  it('is served under its own name unless the spec says another', () => {
    const plain = adapterManifest('a') as unknown as LoraAdapter;
    const named = adapterManifest('a', { servedName: 'sql' }) as unknown as LoraAdapter;
    expect([servedNameOf(plain), servedNameOf(named)]).toEqual(['a', 'sql']);
  });

  it('gets the same defaults from the schema as from the API server', () => {
    expect(LoraAdapterSpec.parse(adapterManifest('a').spec)).toMatchObject({
      source: { push: { durability: 'Memory' } },
      refresh: { mode: 'Pinned' },
      placement: { mode: 'All' },
      update: { keepRevisions: 2 },
      deletion: { policy: 'Drain', drainTimeout: '60s' },
      suspend: false,
    });
  });

  it('shows the first twelve digits of a digest', () => {
    expect(shortDigest(`sha256:${'0123456789ab'.padEnd(64, 'f')}`)).toBe('0123456789ab');
  });
});
