import { expect, it } from 'vitest';
import { siteOf } from '../../../operator/placement/site.ts';
import { FakePod } from '../../support/pod/fake-pod.ts';

it.each([
  ['none in use', { limits: { kvBlocks: 64 }, used: { kvBlocks: 0 } }, 1],
  ['some in use', { limits: { kvBlocks: 64 }, used: { kvBlocks: 48 } }, 0.25],
  ['more in use than there are', { limits: { kvBlocks: 64 }, used: { kvBlocks: 65 } }, 0],
  ['a pod that does not tell', {}, 1],
  ['a pod without any', { limits: { kvBlocks: 0 }, used: { kvBlocks: 0 } }, 1],
  ['a silent pod', { limits: { kvBlocks: 64 }, used: { kvBlocks: 48 }, reachable: false }, 1],
])('reads free KV blocks: %s', (_what, options, kvFree) => {
  expect(siteOf(new FakePod(options), new Set()).kvFree).toBe(kvFree);
});
