import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Reach } from './reach.ts';

/** As `kubectl port-forward` does it, towards a port of this machine; notes what it was called with. */
const FORWARDER = `#!${process.execPath}
const { createServer, connect } = require('node:net');
require('node:fs').appendFileSync(process.env.CALLS, process.argv.slice(2).join(' ') + '\\n');
const server = createServer((socket) => socket.pipe(connect(Number(process.env.TARGET))).pipe(socket));
server.listen(0, '127.0.0.1', () => console.log('Forwarding from 127.0.0.1:' + server.address().port + ' -> 8000'));
`;
const REFUSER = `#!/bin/sh
echo 'error: pods "a" not found' >&2
exit 1
`;
/** An address of TEST-NET-1, to which nothing answers. */
const ELSEWHERE = '192.0.2.1';

let dir: string;
let server: Server;
let port: number;
let reach: Reach;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'lorikeet-reach-'));
  server = createServer((_, response) => response.end('the pod'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  port = (server.address() as AddressInfo).port;
  process.env.TARGET = String(port);
  process.env.CALLS = join(dir, 'calls');
});

afterEach(async () => {
  reach.close();
  server.closeAllConnections();
  server.close();
  await rm(dir, { recursive: true });
});

async function kubectl(text: string): Promise<string> {
  const path = join(dir, 'kubectl');
  await writeFile(path, text);
  await chmod(path, 0o755);
  return path;
}

const pod = (ip: string) => ({ name: 'a', uid: 'u', ip, ready: true, terminating: false, restarts: 0 });

it('goes straight to a pod whose address answers', async () => {
  reach = new Reach(await kubectl(REFUSER), []);
  expect(await reach.url(pod('127.0.0.1'), 'models', port)).toBe(`http://127.0.0.1:${port}`);
});

it('goes through kubectl where it does not, by one process for all calls', async () => {
  reach = new Reach(await kubectl(FORWARDER), ['--context=mine']);
  const urls = await Promise.all([1, 2].map(() => reach.url(pod(ELSEWHERE), 'models', 8000)));
  expect(new Set(urls).size).toBe(1);
  expect(await (await fetch(String(urls[0]))).text()).toBe('the pod');
  const calls = await readFile(join(dir, 'calls'), 'utf8');
  expect(calls).toBe('--context=mine port-forward -n models pod/a :8000\n');
});

it('says why neither way leads there', async () => {
  reach = new Reach(await kubectl(REFUSER), []);
  await expect(reach.url(pod(ELSEWHERE), 'models', 8000)).rejects.toThrow(
    /port 8000 of pod a .*pods "a" not found/,
  );
});
