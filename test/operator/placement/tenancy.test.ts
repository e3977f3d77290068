import { expect, it } from 'vitest';
import { type Standing, standingOf } from '../../../operator/placement/tenancy.ts';
import { loraAdapter, serverPool } from '../adapter/objects.ts';

const selector = { matchLabels: { team: 'rl' } };
const GRANTS: [object | undefined, Standing, Standing, Standing][] = [
  // tenancy, namespace with the label, without it, not read yet
  [undefined, 'refused', 'refused', 'refused'],
  [{}, 'refused', 'refused', 'refused'],
  [{ namespaces: { from: 'Same' } }, 'refused', 'refused', 'refused'],
  [{ namespaces: { from: 'All' } }, 'allowed', 'allowed', 'allowed'],
  [{ namespaces: { from: 'Selector', selector } }, 'allowed', 'refused', 'unknown'],
];

const labelsOf = (namespace: string) => {
  if (namespace === 'unread') return 'unknown';
  return namespace === 'gone' ? null : { team: namespace };
};

it.each(GRANTS)('a pool with tenancy %j lets in', (tenancy, labelled, other, unread) => {
  const pool = serverPool(1, { tenancy });
  const from = (namespace: string) =>
    standingOf(
      loraAdapter('sql', {
        metadata: { namespace },
        spec: { poolRef: { name: 'parrot', namespace: 'lora' } },
      }),
      pool,
      labelsOf,
    );
  expect([from('rl'), from('web'), from('unread'), from('gone')]).toEqual([
    labelled,
    other,
    unread,
    unread === 'allowed' ? 'allowed' : 'refused',
  ]);
  expect(from('lora')).toBe('allowed');
});

it('a pool that does not exist takes its own namespace to be told so, and nobody else', () => {
  expect(standingOf(loraAdapter('sql'), undefined, labelsOf)).toBe('allowed');
  const stranger = loraAdapter('sql', { spec: { poolRef: { name: 'parrot', namespace: 'rl' } } });
  expect(standingOf(stranger, undefined, labelsOf)).toBe('refused');
});
