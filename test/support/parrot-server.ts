import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { startServer } from '../../server/app.ts';
import { parseConfig, type ServerConfig } from '../../server/config.ts';
import { createLog } from '../../server/contract/log.ts';

export const PARROT = resolve(import.meta.dirname, '../fixtures/parrot');

export interface Reply {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests read into JSON of many shapes.
  body: any;
}

/** A server of the parrot model in this process, on free ports, spoken to over HTTP. */
export interface ParrotServer {
  serving: string;
  admin: string;
  token: string;
  post(path: string, body: unknown, signal?: AbortSignal): Promise<Reply>;
  get(path: string): Promise<Reply>;
  /** Stage and activate; the adapter's folder is one of the fixtures. */
  put(name: string, fixture: string, headers?: Record<string, string>): Promise<Reply>;
  close(): Promise<void>;
}

export function adapterFlags(names: string[]): string[] {
  return names.flatMap((name) => ['--adapter', `${name}=${join(PARROT, 'adapters', name)}`]);
}

export async function startParrot(args: string[] = []): Promise<ParrotServer> {
  const folder = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
  const tokenFile = join(folder, 'token');
  const token = 'a-token-for-tests-only';
  writeFileSync(tokenFile, token);
  const flags = ['--model', PARROT, '--port', '0', '--admin-port', '0', '--threads', '2'];
  const config = parseConfig([...flags, '--admin-token-file', tokenFile, ...args], {}) as ServerConfig;
  const server = await startServer(config, createLog('silent'));
  const { serving, admin } = server.listening;
  return {
    serving,
    admin,
    token,
    post: async (path, body, signal) =>
      read(
        await fetch(serving + path, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: typeof body === 'string' ? body : JSON.stringify(body),
          ...(signal ? { signal } : {}),
        }),
      ),
    get: async (path) => read(await fetch(serving + path)),
    put: async (name, fixture, headers = {}) => {
      const source = join(PARROT, 'adapters', fixture);
      const reply = await fetch(`${admin}/v1/adapters/${name}`, {
        method: 'PUT',
        headers: {
          authorization: `Bearer ${token}`,
          'content-type': 'application/octet-stream',
          'x-lora-config': readFileSync(join(source, 'adapter_config.json')).toString('base64url'),
          ...headers,
        },
        body: readFileSync(join(source, 'adapter_model.safetensors')),
      });
      return read(reply);
    },
    close: async () => {
      await server.close(5000);
      rmSync(folder, { recursive: true });
    },
  };
}

export async function read(response: Response): Promise<Reply> {
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.startsWith('application/json');
  return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text };
}

/** The objects of a server-sent stream; throws where it does not end in `[DONE]`. */
// biome-ignore lint/suspicious/noExplicitAny: see Reply.
export function sseObjects(text: string): any[] {
  const lines = text.split('\n\n').filter((line) => line !== '');
  if (lines.pop() !== 'data: [DONE]')
    throw new Error(`The stream does not end in [DONE]: ${text.slice(-200)}`);
  return lines.map((line) => JSON.parse(line.replace(/^data: /, '')));
}

export function userSays(content: string): { role: string; content: string }[] {
  return [{ role: 'user', content }];
}
