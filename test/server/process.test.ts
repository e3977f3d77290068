import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const ROOT = resolve(import.meta.dirname, '../..');
const PARROT = join(ROOT, 'test/fixtures/parrot');

interface Process {
  child: ChildProcess;
  exit: Promise<number | null>;
  /** What it has printed so far. */
  stdout(): string;
  stderr(): string;
  /** Resolves with the first line of stdout. */
  line: Promise<string>;
}

const running: Process[] = [];
afterEach(async () => {
  for (const { child, exit } of running.splice(0)) {
    child.kill('SIGKILL');
    await exit;
  }
});

function start(args: string[], environment: Record<string, string> = {}): Process {
  const child = spawn(join(ROOT, 'node_modules/.bin/node'), ['server/main.ts', ...args], {
    cwd: ROOT,
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const line = new Promise<string>((done) => {
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
      if (stdout.includes('\n')) done(stdout.slice(0, stdout.indexOf('\n')));
    });
  });
  const exit = new Promise<number | null>((done) => child.once('close', done));
  const started = { child, exit, line, stdout: () => stdout, stderr: () => stderr };
  running.push(started);
  return started;
}

const serve = (...more: string[]) => start(['--model', PARROT, '--port', '0', '--admin-port', '0', ...more]);
const listening = async ({ line }: Process): Promise<{ serving: string; admin: string }> =>
  JSON.parse(await line).listening;

function complete(serving: string, maxTokens: number): Promise<Response> {
  return fetch(`${serving}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'parrot',
      prompt: [0],
      max_tokens: maxTokens,
      ignore_eos: true,
      stream: true,
    }),
  });
}

describe('the server process', () => {
  it('prints one line where it listens, logs to stderr, and keeps its token to itself', async () => {
    const server = serve('--adapter', `sql=${join(PARROT, 'adapters/sql')}`, '--log-level', 'warn');
    const { serving, admin } = await listening(server);
    expect((await fetch(`${serving}/ready`)).status).toBe(200);
    expect((await fetch(`${admin}/lora/v1/state`)).status).toBe(401);
    const entry = server
      .stderr()
      .split('\n')
      .find((text) => text.includes('adminTokenFile')) as string;
    const { adminTokenFile } = JSON.parse(entry);
    expect(statSync(adminTokenFile).mode & 0o777).toBe(0o600);
    expect(statSync(dirname(adminTokenFile)).mode & 0o777).toBe(0o700);
    expect(server.stdout().split('\n')).toHaveLength(2);
    server.child.kill('SIGTERM');
    expect(await server.exit).toBe(0);
    expect(() => statSync(adminTokenFile)).toThrow('ENOENT');
  });

  it('is not ready before the operator said that all is here, where asked so', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
    const tokenFile = join(folder, 'token');
    writeFileSync(tokenFile, 'a-token-for-tests-only\n');
    const server = start(['--model', PARROT, '--admin-token-file', tokenFile], {
      LORIKEET_PORT: '0',
      LORIKEET_ADMIN_PORT: '0',
      LORIKEET_READY_WHEN: 'seeded',
    });
    const { serving, admin } = await listening(server);
    expect(await (await fetch(`${serving}/ready`)).json()).toMatchObject({ error: { reason: 'not_seeded' } });
    const headers = { authorization: 'Bearer a-token-for-tests-only' };
    expect((await fetch(`${admin}/lora/v1/seeded`, { method: 'POST', headers })).status).toBe(204);
    expect((await fetch(`${serving}/ready`)).status).toBe(200);
    rmSync(folder, { recursive: true });
  });
});

describe('a token file that others may read', () => {
  let folder: string;
  let file: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
    file = join(folder, 'token');
    writeFileSync(file, 'a-token-for-tests-only\n');
    chmodSync(file, 0o644);
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('is refused where strangers reach the admin API', async () => {
    const failed = serve('--admin-host', '0.0.0.0', '--admin-token-file', file);
    expect(await failed.exit).toBe(2);
    expect(failed.stderr()).toMatch(/--admin-token-file \S+ has mode 0644: .* chmod 0440 it/);
  });

  it('is refused where strangers reach routes that need it on the serving port', async () => {
    const failed = serve('--vllm-api', '--host', '0.0.0.0', '--admin-token-file', file);
    expect(await failed.exit).toBe(2);
    expect(failed.stderr()).toMatch(/--admin-token-file \S+ has mode 0644/);
  });

  it('is warned about on this machine alone, and read again when it changes', async () => {
    const server = serve('--admin-token-file', file);
    const { admin } = await listening(server);
    expect(server.stderr()).toContain('has mode 0644');
    const ask = async (token: string) =>
      (await fetch(`${admin}/lora/v1/state`, { headers: { authorization: `Bearer ${token}` } })).status;
    expect(await ask('a-token-for-tests-only')).toBe(200);
    writeFileSync(file, 'another-token-for-tests\n');
    expect(await ask('a-token-for-tests-only')).toBe(401);
    expect(await ask('another-token-for-tests')).toBe(200);
  });
});

it('loads over the serving port need the token where strangers reach it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
  const file = join(folder, 'token');
  writeFileSync(file, 'a-token-for-tests-only', { mode: 0o600 });
  const root = join(PARROT, 'adapters');
  const dialect = ['--vllm-api', '--lora-root', root, '--host', '0.0.0.0'];
  const { serving } = await listening(serve(...dialect, '--admin-token-file', file));
  const load = async (headers: Record<string, string>) => {
    const body = JSON.stringify({ lora_name: 'sql', lora_path: 'sql' });
    const init = { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body };
    return (await fetch(`${serving}/v1/load_lora_adapter`, init)).status;
  };
  expect(await load({})).toBe(401);
  expect(await load({ authorization: 'Bearer a-token-for-tests-only' })).toBe(200);
  rmSync(folder, { recursive: true });
});

describe.each(['SIGTERM', 'SIGINT'] as const)('%s', (signal) => {
  it('lets a running stream finish, then ends with 0', async () => {
    const server = serve();
    const { serving } = await listening(server);
    const response = await complete(serving, 1500);
    server.child.kill(signal);
    const text = await response.text();
    expect(text).toMatch(/"finish_reason":"length"[\s\S]*data: \[DONE\]\n\n$/);
    const lastByteMs = performance.now();
    expect(await server.exit).toBe(0);
    expect(performance.now() - lastByteMs).toBeLessThan(5000);
    await expect(fetch(`${serving}/ready`)).rejects.toThrow();
  });
});

describe('a second signal', () => {
  it('ends what still runs at once', async () => {
    const server = serve('--backend', 'reference');
    const { serving } = await listening(server);
    const [response] = await Promise.all(Array.from({ length: 8 }, () => complete(serving, 2000)));
    server.child.kill('SIGTERM');
    const impatient = setInterval(() => server.child.kill('SIGTERM'), 50);
    expect(await server.exit).toBe(128 + 15);
    clearInterval(impatient);
    await expect(response?.text()).rejects.toThrow();
  });

  it('that npm sends on behind that of the terminal is the same', async () => {
    const server = serve();
    const { serving } = await listening(server);
    const response = await complete(serving, 1500);
    server.child.kill('SIGINT');
    while (!server.stderr().includes('shutting down')) await delay(1);
    server.child.kill('SIGINT');
    expect(await response.text()).toContain('"finish_reason":"length"');
    expect(await server.exit).toBe(0);
  });
});

describe('a signal while the model loads', () => {
  it('ends the process with 0, and leaves no token behind', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
    const server = start(['--model', PARROT, '--port', '0', '--admin-port', '0'], {
      XDG_RUNTIME_DIR: folder,
    });
    while (!server.stderr().includes('opening the model')) await delay(5);
    server.child.kill('SIGTERM');
    expect(await server.exit).toBe(0);
    expect(readdirSync(folder)).toEqual([]);
    rmSync(folder, { recursive: true });
  });
});

describe('the shutdown deadline', () => {
  it('ends what is still running with an error that can be seen', async () => {
    const server = serve('--shutdown-timeout', '0', '--backend', 'reference');
    const { serving } = await listening(server);
    const response = await complete(serving, 2000);
    server.child.kill('SIGTERM');
    const text = await response.text();
    expect(text).toContain('The server is shutting down.');
    expect(text).not.toContain('finish_reason":"length"');
    expect(await server.exit).toBe(0);
  });
});

describe('the command line', () => {
  it('--help prints the flags', async () => {
    const help = start(['--help']);
    expect(await help.exit).toBe(0);
    expect(help.stdout()).toMatch(/--model DIR[\s\S]*--log-level/);
  });

  it('leaves no token behind where the server cannot start', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
    const failed = start(['--model', '/does/not/exist'], { XDG_RUNTIME_DIR: folder });
    expect(await failed.exit).toBe(1);
    expect(readdirSync(folder)).toEqual([]);
    rmSync(folder, { recursive: true });
  });

  it.each<[string[], number, RegExp]>([
    [['--nonsense'], 2, /nonsense/],
    [[], 2, /--model is required/],
    [
      ['--model', PARROT, '--backend', 'abacus'],
      2,
      /one of auto, cuda, cpu, reference for backend but received abacus/,
    ],
    [['--model', PARROT, '--backend', 'cuda'], 2, /The backend cuda cannot run here: \S/],
    [['--model', PARROT, '--backend', 'reference', '--dtype', 'bfloat16'], 2, /auto or float32 for dtype/],
    [
      ['--model', PARROT, '--vllm-api', '--lora-root', '/does/not/exist'],
      2,
      /--lora-root \/does\/not\/exist cannot be opened: ENOENT/,
    ],
    [['--model', PARROT, '--admin-host', '0.0.0.0'], 2, /--admin-token-file is required/],
    [
      ['--model', PARROT, '--admin-token-file', '/does/not/exist'],
      2,
      /\/does\/not\/exist cannot be read: ENOENT/,
    ],
    [['--model', PARROT, '--admin-token-file', join(PARROT, 'config.json')], 2, /bearer tokens/],
    [
      ['--model', PARROT, '--backend', 'cpu', '--kv-bytes', '100Ti'],
      2,
      /at most the \d+ bytes of memory that there are for --kv-bytes but received 109951162777600/,
    ],
    [['--model', PARROT, '--max-model-len', '2049'], 1, /at most the 2048 of max_position_embeddings/],
    [['--model', '/does/not/exist'], 1, /\/does\/not\/exist/],
    [['--model', PARROT, '--adapter', 'x=/does/not/exist'], 1, /\/does\/not\/exist/],
  ])('%j ends with its reason', async (args, code, says) => {
    const failed = start(args);
    expect(await failed.exit).toBe(code);
    expect(failed.stderr()).toMatch(says);
    expect(failed.stdout()).toBe('');
  });
});
