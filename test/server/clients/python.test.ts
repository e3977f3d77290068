import { execFile, execFileSync } from 'node:child_process';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { canonicalJson } from '../../../server/contract/digest.ts';

import { TOKENS } from '../../operator/push/fake-reviews.ts';
import { type Rig, startRig } from '../../operator/push/harness.ts';
import { adapterState, digest } from '../../support/pod/state.ts';
import { type ServerProcess, startServer } from '../../support/server-process.ts';

const ROOT = resolve(import.meta.dirname, '../../..');
const TESTS = join(import.meta.dirname, 'python');
const PYTHON_MIN = [3, 10];

/** JSON whose numbers, keys and text two languages write differently. */
const JSON_TEXTS = [
  '[0.0, -0.0, 16.0, -1.5, 1e2, 0.1, 5e-324, 9007199254740991]',
  '[1e-5, -1.25e-5, 1e-6, 9.5e-7, 1e-7, -1.5e-300, 123456789.125, 1e15, 0.30000000000000004]',
  '{"b": null, "a": true, "A": false, "é": 1, "\\ud83d\\ude00": 2, "\\uff61": 3, "10": 4, "9": 5}',
  '"\\u0000\\u001f\\u007f\\u2028\\b\\f\\n\\r\\t\\"\\\\/é"',
];

/** Null where the tests can run. */
function whyNot(): string | null {
  try {
    const print = 'import sys; print(*sys.version_info[:2])';
    const version = execFileSync('python3', ['-c', print], { encoding: 'utf8' });
    const [major = 0, minor = 0] = version.trim().split(' ').map(Number);
    const [least = 0, leastMinor = 0] = PYTHON_MIN;
    if (major > least || (major === least && minor >= leastMinor)) return null;
    return `python3 is ${major}.${minor}, and ${PYTHON_MIN.join('.')} is needed`;
  } catch {
    return 'there is no python3';
  }
}

const reason = whyNot();
if (reason !== null) console.warn(`The Python client is not tested: ${reason}`);

describe.skipIf(reason !== null)('the Python client', () => {
  let server: ServerProcess;
  let operator: Rig;
  beforeAll(async () => {
    server = await startServer(['--model', 'test/fixtures/parrot']);
    operator = await startRig();
    for (const pod of operator.publisher.pods) {
      pod.state?.adapters.push(adapterState('sql-served', digest('a')));
    }
  });
  afterAll(async () => {
    await operator?.close();
    await server?.stop();
  });

  it.each([
    'test_digest',
    'test_safetensors',
    'test_push',
    'test_refusals',
    'test_retries',
    'test_tls',
    'test_operator',
    'test_trace',
  ])('%s', async (module) => {
    const { code, output } = await unittest(module, {
      LORIKEET_ADMIN: server.admin,
      LORIKEET_SERVING: server.serving,
      LORIKEET_TOKEN: server.adminToken,
      LORIKEET_OPERATOR: `http://127.0.0.1:${operator.port}`,
      LORIKEET_OPERATOR_TOKEN: TOKENS.trainer,
      LORIKEET_CANONICAL: JSON.stringify(JSON_TEXTS.map((text) => [text, canonicalJson(JSON.parse(text))])),
    });
    expect(code, output).toBe(0);
  });
});

/** Not in this process's turn: the operator that it asks runs here. */
function unittest(module: string, environment: Record<string, string>) {
  const env = {
    ...process.env,
    ...environment,
    PYTHONPATH: join(ROOT, 'server/clients/python'),
    PYTHONDONTWRITEBYTECODE: '1',
  };
  const options = { cwd: TESTS, env, timeout: 120_000 };
  return new Promise<{ code: number | null; output: string }>((done) => {
    execFile(
      'python3',
      ['-W', 'error::ResourceWarning', '-m', 'unittest', module],
      options,
      (error, out, err) => {
        done({ code: error === null ? 0 : Number(error.code ?? -1), output: `${out}${err}` });
      },
    );
  });
}
