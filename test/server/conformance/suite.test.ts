import { afterAll, beforeAll, expect, it } from 'vitest';
import { CHECKS } from '../../../server/conformance/checks.ts';
import { type Result, runSuite } from '../../../server/conformance/suite.ts';
import { type ParrotServer, startParrot } from '../../support/parrot-server.ts';

let server: ParrotServer;
beforeAll(async () => {
  server = await startParrot();
});
afterAll(() => server.close());

it('passes our own server', async () => {
  const { admin, serving, token } = server;
  const { results } = await runSuite({
    target: { admin, serving, token, tls: {} },
    checks: CHECKS,
    isForced: false,
    salt: 'a test',
    patienceMs: 30_000,
    onResult: () => {},
  });
  const notPassed = results.filter(({ outcome }) => outcome !== 'pass');
  const told = ({ check, expected, actual, reason }: Result) => ({
    name: check.name,
    expected,
    actual,
    reason,
  });
  expect(notPassed.map(told)).toEqual([]);
}, 120_000);
