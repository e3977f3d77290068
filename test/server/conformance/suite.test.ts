import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Check } from '../../../server/conformance/check.ts';
import { CHECKS } from '../../../server/conformance/checks.ts';
import { type Result, runSuite } from '../../../server/conformance/suite.ts';
import { type ParrotServer, startParrot } from '../../support/parrot-server.ts';
import { DEFECTS } from './defects.ts';
import { type Defect, openDouble } from './double.ts';

let server: ParrotServer;
beforeAll(async () => {
  server = await startParrot();
});
afterAll(() => server.close());

let runs = 0;

/** What the checks found that did not pass. */
async function runAt(urls: { admin: string; serving: string }, checks: Check[], patienceMs: number) {
  runs += 1;
  const { results } = await runSuite({
    target: { ...urls, token: server.token, tls: {} },
    checks,
    // A defect may keep the suite from taking its adapters away.
    isForced: true,
    salt: `run ${runs}`,
    patienceMs,
    onResult: () => {},
  });
  return results.filter(({ outcome }) => outcome !== 'pass').map(told);
}

async function runThroughDouble(defect: Defect, checks: Check[], patienceMs: number) {
  const [admin, serving] = await Promise.all([
    openDouble(server.admin, defect),
    openDouble(server.serving, defect),
  ]);
  try {
    return await runAt({ admin: admin.url, serving: serving.url }, checks, patienceMs);
  } finally {
    await Promise.all([admin.close(), serving.close()]);
  }
}

function told({ check, outcome, expected, actual, reason }: Result) {
  return { name: check.name, outcome, expected, actual, reason };
}

const named = (names: string[]) => CHECKS.filter(({ name }) => names.includes(name));

describe('the suite', () => {
  // It waits for a heartbeat of 10 s.
  it('finds nothing in our own server, and leaves nothing in it', async () => {
    expect(await runAt(server, CHECKS, 30_000)).toEqual([]);
    const headers = { authorization: `Bearer ${server.token}` };
    const state = await (await fetch(`${server.admin}/lora/v1/state`, { headers })).json();
    expect(state).toMatchObject({ adapters: [], used: { hostBytes: 0 } });
  }, 180_000);

  it('finds nothing through a double without a defect', async () => {
    const checks = named(DEFECTS.map(({ check }) => check));
    expect(await runThroughDouble({}, checks, 30_000)).toEqual([]);
  }, 60_000);

  it.each(DEFECTS)('finds a server that $what: $check', async ({ check, plant }) => {
    const found = await runThroughDouble(plant(), named([check]), 1_500);
    expect(found).toEqual([expect.objectContaining({ name: check, outcome: 'fail' })]);
    // A double that answers nothing would fail each check.
    expect(found[0]?.expected).not.toBe('an answer');
  });

  it.each([0, 7])('shuts out no operator of a pod whose term is %i', async (term) => {
    const pod = await startParrot();
    const remove = async (fence: string) => {
      const headers = { authorization: `Bearer ${pod.token}`, 'x-lora-fence': fence };
      return (await fetch(`${pod.admin}/lora/v1/adapters/none`, { method: 'DELETE', headers })).status;
    };
    await remove(`${term}.0`);
    const fences = CHECKS.filter(({ name }) => name.startsWith('fence-'));
    expect(await runAt(pod, fences, 30_000)).toEqual([]);
    // The first operator of all has term 1.
    expect(await remove(`${Math.max(term, 1)}.0`)).toBe(200);
    await pod.close();
  });
});
