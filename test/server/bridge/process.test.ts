import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { PARROT, type ParrotServer, startParrot } from '../../support/parrot-server.ts';

const ROOT = resolve(import.meta.dirname, '../../..');
const ADAPTERS = join(PARROT, 'adapters');

let folder: string;
let tokenFile: string;
let pod: ParrotServer;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
  tokenFile = join(folder, 'token');
  writeFileSync(tokenFile, 'a-token-for-tests-only', { mode: 0o600 });
  pod = await startParrot(['--vllm-api', '--backend', 'reference']);
});
afterAll(async () => {
  await pod.close();
  rmSync(folder, { recursive: true });
});

const running: ChildProcess[] = [];
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
});

function start(args: string[]) {
  const child = spawn(join(ROOT, 'node_modules/.bin/node'), ['server/bridge/main.ts', ...args], {
    cwd: ROOT,
  });
  running.push(child);
  let stderr = '';
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const exit = new Promise<number | null>((done) => child.once('close', done));
  const listening = new Promise<string>((done) =>
    child.stdout.once('data', (line) => done(JSON.parse(String(line)).listening.serving)),
  );
  return { child, exit, listening, stderr: () => stderr };
}

const required = () => ['--push', pod.admin, '--push-token-file', tokenFile, '--serving', pod.serving];
const bridge = (...more: string[]) => start([...required(), '--lora-root', ADAPTERS, '--port', '0', ...more]);
const post = (url: string, body: object, headers: Record<string, string> = {}) =>
  fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });

describe('the bridge process', () => {
  it('lets a running stream finish after SIGTERM, then ends with 0', async () => {
    const { child, exit, listening } = bridge();
    const ask = { model: 'parrot', prompt: [0], max_tokens: 100, ignore_eos: true, stream: true };
    const response = await post(`${await listening}/v1/completions`, ask);
    child.kill('SIGTERM');
    expect(await response.text()).toMatch(/"finish_reason":"length"[\s\S]*data: \[DONE\]\n\n$/);
    expect(await exit).toBe(0);
  });

  it('cuts off what runs longer than it may', async () => {
    const { child, exit, listening } = bridge('--shutdown-timeout', '0');
    const ask = { model: 'parrot', prompt: [0], max_tokens: 2000, ignore_eos: true, stream: true };
    const response = await post(`${await listening}/v1/completions`, ask);
    child.kill('SIGTERM');
    await expect(response.text()).rejects.toThrow();
    expect(await exit).toBe(0);
  });

  it('wants its token for loads where strangers reach it, and for nothing else', async () => {
    const { listening } = bridge('--host', '0.0.0.0', '--token-file', tokenFile);
    const url = await listening;
    const load = async (headers: Record<string, string>) =>
      (await post(`${url}/v1/load_lora_adapter`, { lora_name: 'sql-v1', lora_path: 'sql' }, headers)).status;
    expect([await load({}), await load({ authorization: 'Bearer wrong' })]).toEqual([401, 401]);
    expect(await load({ authorization: 'Bearer a-token-for-tests-only' })).toBe(200);
    expect(
      (await post(`${url}/v1/completions`, { model: 'sql-v1', prompt: 'a', max_tokens: 1 })).status,
    ).toBe(200);
  });

  it.each<[string[], RegExp]>([
    [['--nonsense'], /nonsense/],
    [['--push-token-file', '/does/not/exist'], /--push-token-file \/does\/not\/exist cannot be read: ENOENT/],
    [['--lora-root', '/does/not/exist'], /--lora-root \/does\/not\/exist cannot be opened: ENOENT/],
  ])('%j ends with its reason', async (args, says) => {
    const others = ['--push', 'http://a', '--serving', 'http://a', '--port', '0'];
    const files = { '--push-token-file': tokenFile, '--lora-root': ADAPTERS };
    const rest = Object.entries(files).filter(([flag]) => !args.includes(flag));
    const { exit, stderr } = start([...others, ...rest.flat(), ...args]);
    expect(await exit).toBe(2);
    expect(stderr()).toMatch(says);
  });
});
