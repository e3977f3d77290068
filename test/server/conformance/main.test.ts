import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestCa } from '../../support/certificates.ts';
import { type ParrotServer, startParrot } from '../../support/parrot-server.ts';
import { openDouble } from './double.ts';

const ROOT = resolve(import.meta.dirname, '../../..');
const LEFT = 'lorikeet-conformance-left-1';

let server: ParrotServer;
let folder: string;
let tokenFile: string;
beforeAll(async () => {
  server = await startParrot();
  folder = mkdtempSync(join(tmpdir(), 'lorikeet-conformance-'));
  tokenFile = join(folder, 'token');
  writeFileSync(tokenFile, `${server.token}\n`);
});
afterAll(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** As a user starts it. */
function run(...args: string[]): Promise<Ended> {
  const file = join(ROOT, 'server/conformance/main.ts');
  return new Promise((done) => {
    const child = execFile(process.execPath, [file, ...args], (_error, stdout, stderr) => {
      done({ code: child.exitCode ?? -1, stdout, stderr });
    });
  });
}

const runAt = (url: string, ...args: string[]) => run(url, '--token-file', tokenFile, ...args);

describe('npm run conformance', () => {
  it('ends with 0 where the server conforms, and sums up', async () => {
    const { code, stdout } = await runAt(server.admin, '--only', 'state-boot');
    expect([code, stdout]).toEqual([
      0,
      expect.stringMatching(/^pass {2}state-boot-id\n1 passed, 0 failed, /),
    ]);
  });

  it('says which checks it had to leave out', async () => {
    const { code, stdout } = await runAt(server.admin, '--only', 'serving-');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^skip {2}serving-revision: no --serving$/m);
    expect(stdout).toMatch(/\n0 passed, 0 failed, 0 warned, \d+ skipped in [\d.]+ s\n$/);
  });

  it('ends with 1 where a MUST is not met, and says what came instead', async () => {
    const refusing = await openDouble(server.admin, {
      answer: (said) => (said.status === 404 ? { ...said, body: Buffer.from('<No & "no">') } : said),
    });
    const { code, stdout } = await runAt(refusing.url, '--only', 'route-unknown');
    expect(code).toBe(1);
    expect(stdout).toContain('FAIL  route-unknown\n        MUST: A path that there is not is 404.\n');
    expect(stdout).toContain(
      'expected 404 route_not_found to GET /lora/v1/nothing\n        received 404 <No & "no">',
    );

    const json = JSON.parse((await runAt(refusing.url, '--only', 'route-unknown', '-o', 'json')).stdout);
    expect(json).toMatchObject({
      summary: { passed: 0, failed: 1, warned: 0, skipped: 0 },
      checks: [{ name: 'route-unknown', level: 'MUST', outcome: 'fail', actual: '404 <No & "no">' }],
    });
    const junit = (await runAt(refusing.url, '--only', 'route-unknown', '-o', 'junit')).stdout;
    expect(junit).toContain('<testsuites tests="1" failures="1" skipped="0">');
    expect(junit).toContain('received 404 &lt;No &amp; &quot;no&quot;&gt;</failure>');
    await refusing.close();
  });

  it('ends with 0 where only a SHOULD is not met', async () => {
    const states: Buffer[] = [];
    const late = await openDouble(server.admin, {
      answer: (said, { url }) => {
        if (!url.endsWith('/state')) return said;
        return { ...said, body: states[states.push(said.body) - 2] ?? said.body };
      },
    });
    const { code, stdout } = await runAt(late.url, '--only', 'state-not-cached', '--force');
    expect([code, stdout]).toEqual([0, expect.stringContaining('warn  state-not-cached\n')]);
    await late.close();
  });

  it.each([
    ['an unknown flag', ['http://127.0.0.1:1', '--quick'], '--quick'],
    ['no URL', ['--only', 'state'], 'Expected the URL of an admin API'],
    ['a check that there is not', ['http://127.0.0.1:1', '--only', 'no-such'], 'received no-such'],
    [
      'a token file that is not there',
      ['http://127.0.0.1:1', '--token-file', '/nowhere'],
      '--token-file: ENOENT',
    ],
    ['nobody there', ['http://127.0.0.1:1'], 'http://127.0.0.1:1 does not answer'],
  ])('ends with 2 for %s', async (_what, args, words) => {
    const { code, stderr } = await run(...args);
    expect([code, stderr]).toEqual([2, expect.stringContaining(words)]);
  });

  it('ends with 2 where what answers is no admin API, or wants a token', async () => {
    for (const url of [server.serving, server.admin]) {
      const { code, stderr } = await run(url, '--only', 'state');
      expect([code, stderr]).toEqual([2, expect.stringContaining(`${url} is no admin API: Expected 200`)]);
    }
  });

  it('does not run beside what an earlier run left, unless it is told to take that away', async () => {
    await server.put(LEFT, 'sql');
    const refused = await runAt(server.admin, '--only', 'state-boot-id');
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining(LEFT)]);
    const forced = await runAt(server.admin, '--only', 'state-boot-id', '--force');
    expect(forced.code).toBe(0);
    const headers = { authorization: `Bearer ${server.token}` };
    const state = await (await fetch(`${server.admin}/lora/v1/state`, { headers })).json();
    expect(state).toMatchObject({ adapters: [] });
  });

  it('knows the server by a CA, and shows it a certificate', async () => {
    const ca = new TestCa();
    const files = { ...ca.issue('IP:127.0.0.1'), ca: ca.certificate };
    const paths = Object.fromEntries(Object.keys(files).map((name) => [name, join(folder, name)]));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    const { cert = '', key = '', ca: caFile = '' } = paths;
    const own = [
      '--admin-tls-cert-file',
      cert,
      '--admin-tls-key-file',
      key,
      '--admin-client-ca-file',
      caFile,
    ];
    const encrypted = await startParrot(own);
    const known = await runAt(
      encrypted.admin,
      '--ca',
      caFile,
      '--cert',
      cert,
      '--key',
      key,
      '--only',
      'body-',
    );
    expect([known.code, known.stdout]).toEqual([0, expect.stringContaining('3 passed, 0 failed')]);
    for (const lacking of [
      ['--cert', cert, '--key', key],
      ['--ca', caFile],
    ]) {
      const { code, stderr } = await runAt(encrypted.admin, ...lacking, '--only', 'body-');
      expect([code, stderr]).toEqual([2, expect.stringContaining('does not answer')]);
    }
    await encrypted.close();
    ca.remove();
  });
});
