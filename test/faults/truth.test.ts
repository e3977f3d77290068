import { describe, expect, it } from 'vitest';
import { digest } from '../support/pod/state.ts';
import type { ApiCall } from './api-proxy.ts';
import { untruthsIn } from './truth.ts';

const A = { digest: digest('a'), short: 'aaaa' };
const B = { digest: digest('b'), short: 'bbbb' };
const PODS = [[A], [A, B]].map((revisions) => ({
  served: revisions.map((revision) => ({ name: 'policy', ...revision })),
}));

function write(status: object, kind = 'loraadapters/status'): ApiCall {
  const body = Buffer.from(JSON.stringify({ status }));
  return { kind, body, method: 'PUT', url: '', isWatch: false, isList: false };
}

describe('a write of status', () => {
  it.each([
    { name: 'as many ready as serve it', status: { desiredRevision: A, pods: { ready: 2 } }, untruths: 0 },
    { name: 'more ready than serve it', status: { desiredRevision: B, pods: { ready: 2 } }, untruths: 1 },
    { name: 'ready without a revision', status: { pods: { ready: 1 } }, untruths: 1 },
    { name: 'current where some serve it', status: { currentRevision: B }, untruths: 0 },
    {
      name: 'current where nobody serves it',
      status: { currentRevision: { digest: digest('c'), short: 'cccc' } },
      untruths: 1,
    },
  ])('is taken at its word by the matrices: $name', ({ status, untruths }) => {
    expect(untruthsIn(write(status), PODS)).toHaveLength(untruths);
  });

  it('of a pool says nothing of revisions', () => {
    expect(untruthsIn(write({ pods: 3 }, 'serverpools/status'), PODS)).toEqual([]);
  });
});
