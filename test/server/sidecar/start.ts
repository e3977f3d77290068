import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '../../../server/config.ts';
import type { PodState } from '../../../server/contract/adapter-api.ts';
import { createLog } from '../../../server/contract/log.ts';
import { startSidecar } from '../../../server/sidecar-app.ts';
import { type AdapterFiles, goodAdapter } from '../../support/adapter-files.ts';
import { PARROT } from '../../support/parrot-server.ts';

export interface TestSidecar {
  serving: string;
  admin: string;
  dir: string;
  put(name: string, seed: number, options?: PutOptions): Promise<Response>;
  adminCall(method: string, path: string, body?: object): Promise<Response>;
  state(): Promise<PodState>;
  complete(body: object, headers?: Record<string, string>): Promise<Answered>;
  close(): Promise<void>;
}

export interface Answered {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: of a client that knows what it asked for
  body: any;
}

interface PutOptions {
  step?: number;
  files?: AdapterFiles;
}

const TOKEN = 'a-token-for-tests-only';

/** A sidecar of the engine at that URL, in this process. */
export async function sidecar(url: string, flags: string[] = [], kind = 'vllm'): Promise<TestSidecar> {
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-sidecar-'));
  const own = [
    '--model',
    PARROT,
    '--engine',
    kind,
    '--engine-url',
    url,
    '--engine-dir',
    join(dir, 'adapters'),
  ];
  const tokenFile = join(dir, 'token');
  await writeFile(tokenFile, TOKEN, { mode: 0o600 });
  const ports = [
    '--admin-token-file',
    tokenFile,
    '--port',
    '0',
    '--admin-port',
    '0',
    '--log-level',
    'silent',
  ];
  const config = parseConfig([...own, ...ports, ...flags], {});
  if (config?.attached == null) throw new Error('Expected an attached engine');
  const running = await startSidecar(config, config.attached, createLog(config.logLevel));
  const { serving, admin } = running.listening as { serving: string; admin: string };
  const adminCall = (method: string, path: string, body?: object) =>
    fetch(admin + path, {
      method,
      headers: { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
  return {
    serving,
    admin,
    dir,
    adminCall,
    put(name, seed, { step, files = goodAdapter(seed) } = {}) {
      const headers = {
        authorization: `Bearer ${TOKEN}`,
        'content-type': 'application/octet-stream',
        'x-lora-config': files.config.toString('base64url'),
        ...(step !== undefined && { 'x-lora-step': String(step) }),
      };
      return fetch(`${admin}/v1/adapters/${name}`, {
        method: 'PUT',
        headers,
        body: new Uint8Array(files.tensors),
      });
    },
    async state() {
      return (await (await adminCall('GET', '/lora/v1/state')).json()) as PodState;
    },
    async complete(body, headers = {}) {
      const response = await fetch(`${serving}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify(body),
      });
      const text = await response.text();
      const isJson = response.headers.get('content-type')?.startsWith('application/json');
      return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text };
    },
    async close() {
      await running.close(1_000);
      await rm(dir, { recursive: true, force: true });
    },
  };
}
