import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { startBridge } from '../../../server/bridge/app.ts';
import { type BridgeConfig, parseConfig } from '../../../server/bridge/config.ts';
import { createLog } from '../../../server/contract/log.ts';
import { PARROT, type Reply, read } from '../../support/parrot-server.ts';

/** Of every pod that startParrot starts. */
const TOKEN = 'a-token-for-tests-only';

export interface TestBridge {
  url: string;
  /** The trainer's disk. */
  root: string;
  /** As a trainer writes a version; returns its path. */
  save(folder: string, fixture: string): string;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Reply>;
  get(path: string): Promise<Reply>;
  /** What it logged under this message. */
  logged(message: string): Record<string, unknown>[];
  close(): Promise<void>;
}

export interface Place {
  push: string[];
  serving: string[];
}

/** A bridge in this process, on a free port, spoken to over HTTP. */
export async function bridge({ push, serving }: Place, args: string[] = []): Promise<TestBridge> {
  const folder = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
  const root = join(folder, 'output');
  mkdirSync(root);
  const tokenFile = join(folder, 'token');
  writeFileSync(tokenFile, TOKEN, { mode: 0o600 });
  const lines: string[] = [];
  const log = createLog('info', { write: (line: string) => void lines.push(line) }) as Logger;
  const flags = ['--push', push.join(','), '--push-token-file', tokenFile, '--serving', serving.join(',')];
  const own = ['--lora-root', root, '--port', '0'];
  const config = parseConfig([...flags, ...own, ...args], {}) as BridgeConfig;
  const running = await startBridge(config, log);
  const url = running.listening.serving;
  return {
    url,
    root,
    save(name, fixture) {
      const path = join(root, name);
      mkdirSync(path, { recursive: true });
      cpSync(join(PARROT, 'adapters', fixture), path, { recursive: true });
      return path;
    },
    post: async (path, body, headers = {}) =>
      read(
        await fetch(url + path, {
          method: 'POST',
          headers: { 'content-type': 'application/json', ...headers },
          body: typeof body === 'string' ? body : JSON.stringify(body),
        }),
      ),
    get: async (path) => read(await fetch(url + path)),
    logged: (message) => lines.map((line) => JSON.parse(line)).filter(({ msg }) => msg === message),
    close: async () => {
      await running.close(2000);
      rmSync(folder, { recursive: true });
    },
  };
}
