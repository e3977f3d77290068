import { afterEach, expect, it } from 'vitest';
import { digestOf } from '../../support/adapter-files.ts';
import { refusal } from '../../support/pod/fault.ts';
import { type Harness, startHarness } from './harness.ts';
import { loraAdapter } from './objects.ts';

let harness: Harness;
afterEach(() => harness.stop());

const served = () => harness.servers.map((server) => server.currentOf('sql'));
const calls = (operation: 'upload' | 'stage') => harness.servers.map((server) => server.count(operation));

it('a revision from a source goes to the first of many pods, and from pod to pod to all', async () => {
  harness = await startHarness([{}, {}, {}, {}]);
  harness.apply(loraAdapter('sql'));
  await harness.settle('sql');
  const digest = digestOf(harness.source.files);
  expect([served(), calls('upload'), calls('stage')]).toEqual([
    [digest, digest, digest, digest],
    [1, 1, 1, 1],
    [0, 0, 0, 0],
  ]);
  const [first, ...behind] = harness.servers;
  const upload = first?.calls.find(({ operation }) => operation === 'upload');
  expect(upload?.headers['x-lora-relay']).toBe(behind.map(({ url }) => url).join());
});

it('is brought to those behind a pod that falls out one by one, and the pod is noted', async () => {
  harness = await startHarness([{}, {}, {}, {}]);
  const [, second] = harness.servers;
  second?.fail('upload', { kind: 'reset', afterBytes: 1 });
  second?.fail('stage', refusal('no_capacity'), 99);
  harness.apply(loraAdapter('sql'));
  const digest = digestOf(harness.source.files);
  await harness.settle('sql', () => served().filter((current) => current === digest).length === 3);
  expect([served(), calls('stage').map((count) => count > 0)]).toEqual([
    [digest, null, digest, digest],
    [false, true, true, true],
  ]);
  const fates = harness.adapters.get('lora/sql')?.status;
  expect(JSON.stringify(fates?.conditions)).toContain('no_capacity');
});

it('goes to each by itself where the first knows nothing of relays', async () => {
  harness = await startHarness([{}, {}, {}, {}]);
  harness.servers[0]?.fail('upload', { kind: 'garbage' });
  harness.apply(loraAdapter('sql'));
  await harness.settle('sql');
  const digest = digestOf(harness.source.files);
  expect([served(), calls('stage')]).toEqual([
    [digest, digest, digest, digest],
    [1, 1, 1, 1],
  ]);
});
