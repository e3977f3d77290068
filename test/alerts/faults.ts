import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { PodState } from '../../server/contract/adapter-api.ts';
import { adminUrl, chatBody, fixtureAdapter, PUSH_PORT, push, pushUrl, servingUrl } from '../e2e/client.ts';
import { NAMESPACE, type World } from '../e2e/world.ts';
import { brokenAdapters } from '../support/broken-adapters.ts';

/** What goes wrong in the world of fire.cluster.test.ts, each as it does in earnest. */

export function brokenAdapter(name: string) {
  const broken = brokenAdapters().find((adapter) => adapter.name === name);
  if (broken === undefined) throw new Error(`no broken adapter ${name}`);
  return broken;
}

export async function adminToken({ plane }: World): Promise<string> {
  const args = ['get', 'secret', 'parrot-admin', '-n', NAMESPACE, '-o', 'jsonpath={.data.token}'];
  return Buffer.from(await plane.kubectl(args), 'base64').toString();
}

/** More requests at once than may run and wait. */
export async function crowd(ip: string): Promise<void> {
  const body = chatBody('parrot', 'List the name of all songs.', { max_tokens: 60, ignore_eos: true });
  const headers = { 'content-type': 'application/json' };
  const ask = async () => {
    const response = await fetch(`${servingUrl(ip)}/v1/chat/completions`, { method: 'POST', headers, body });
    await response.text();
  };
  await Promise.all(Array.from({ length: 40 }, ask));
}

/** Admin calls of somebody who does not know the token. */
export async function strangersAtPod(ip: string): Promise<void> {
  for (let call = 0; call < 8; call += 1) {
    const response = await fetch(`${adminUrl(ip)}/lora/v1/state`, {
      headers: { authorization: 'Bearer guess' },
    });
    await response.text();
  }
}

/** Pushes that are refused before or after their sender is known. */
export async function refusedPushes(operatorIp: string, token: string, body: 'nan' | null): Promise<void> {
  const url = pushUrl(operatorIp, NAMESPACE, 'live');
  const files = body === null ? await fixtureAdapter('json') : brokenAdapter(body);
  for (let count = 0; count < 8; count += 1) await (await push(url, files, { token })).text();
}

export async function putByHand(ip: string, token: string, name: string): Promise<void> {
  const { tensors, config } = await fixtureAdapter('rank-1-f16');
  const response = await fetch(`${adminUrl(ip)}/v1/adapters/${name}`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${token}`, 'x-lora-config': config.toString('base64url') },
    body: new Uint8Array(tensors),
  });
  if (response.status !== 200) throw new Error(await response.text());
}

/** Takes an adapter out of a pod whenever the operator has brought it back, until told to stop. */
export async function removeAgainAndAgain(
  ip: string,
  { token, name, stop }: { token: string; name: string; stop: AbortSignal },
): Promise<void> {
  const headers = { authorization: `Bearer ${token}` };
  while (!stop.aborted) {
    const response = await fetch(`${adminUrl(ip)}/lora/v1/state`, { headers });
    const { adapters } = PodState.parse(await response.json());
    // Not while it is on its way: the operator would take longer and longer pauses.
    if (adapters.some((adapter) => adapter.name === name && adapter.current !== null)) {
      const url = `${adminUrl(ip)}/lora/v1/adapters/${name}`;
      await (await fetch(url, { method: 'DELETE', headers })).text();
    }
    await sleep(100);
  }
}

/** A push whose body comes just fast enough not to be cut off for half a minute. Ends with `stop`. */
export async function trickle(operatorIp: string, token: string, stop: AbortSignal): Promise<void> {
  const { tensors, config } = await fixtureAdapter('pirate');
  const { pathname } = new URL(pushUrl(operatorIp, NAMESPACE, 'live'));
  const socket = connect({ host: operatorIp, port: PUSH_PORT });
  socket.on('error', () => socket.destroy());
  const head = [
    `PUT ${pathname} HTTP/1.1`,
    `host: ${operatorIp}`,
    `authorization: Bearer ${token}`,
    `x-lora-config: ${config.toString('base64url')}`,
    `content-length: ${tensors.length}`,
  ];
  socket.write(`${head.join('\r\n')}\r\n\r\n`);
  const PIECE = 16 << 10;
  for (let at = 0; at < tensors.length - PIECE && !stop.aborted; at += PIECE) {
    socket.write(tensors.subarray(at, at + PIECE));
    await sleep(1_500, undefined, { signal: stop }).catch(() => undefined);
  }
  socket.destroy();
}
