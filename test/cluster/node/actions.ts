import { spawn } from 'node:child_process';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { V1Container, V1ExecAction, V1HTTPGetAction, V1TCPSocketAction } from '@kubernetes/client-node';

/** Where a container runs, for what is done to it from outside. */
export interface Place {
  container: V1Container;
  podIP: string;
  cwd: string;
  environment: Record<string, string>;
  /** Rewrites mount paths and variables, as in the container's own command. */
  rewrite(text: string): string;
}

/** What a probe and a lifecycle hook have in common. */
export interface Action {
  exec?: V1ExecAction;
  httpGet?: V1HTTPGetAction;
  tcpSocket?: V1TCPSocketAction;
  sleep?: { seconds: number };
}

/** Throws where the action fails or takes longer than the timeout. */
export async function perform(action: Action, place: Place, timeoutMs: number): Promise<void> {
  const signal = AbortSignal.timeout(timeoutMs);
  if (action.exec) return await execute((action.exec.command ?? []).map(place.rewrite), place, signal);
  if (action.httpGet) return await getHttp(action.httpGet, place, signal);
  if (action.tcpSocket) return await connectTcp(action.tcpSocket, place, signal);
  if (action.sleep) return await sleep(action.sleep.seconds * 1_000, undefined, { signal });
  throw new Error('this node knows exec, httpGet, tcpSocket and sleep');
}

function execute([command = '', ...args]: string[], place: Place, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const { cwd, environment: env } = place;
    const child = spawn(command, args, { cwd, env, signal, killSignal: 'SIGKILL', stdio: 'ignore' });
    child.once('error', reject);
    child.once('exit', (code) =>
      code === 0 ? resolve() : reject(new Error(`${command} ended with ${code}`)),
    );
  });
}

function getHttp(get: V1HTTPGetAction, place: Place, signal: AbortSignal): Promise<void> {
  const tls = get.scheme === 'HTTPS';
  const options = {
    host: get.host ?? place.podIP,
    port: portOf(get.port, place.container),
    path: get.path ?? '/',
    headers: Object.fromEntries((get.httpHeaders ?? []).map(({ name, value }) => [name, value])),
    agent: false as const,
    // As the kubelet: a probe asks whether the server answers, not who it is.
    rejectUnauthorized: false,
    signal,
  };
  return new Promise((resolve, reject) => {
    const call = (tls ? httpsRequest : httpRequest)(options, (response) => {
      const status = response.statusCode ?? 0;
      response.destroy();
      if (status >= 200 && status < 400) resolve();
      else reject(new Error(`HTTP probe failed with statuscode: ${status}`));
    });
    call.once('error', reject);
    call.end();
  });
}

function connectTcp({ host, port }: V1TCPSocketAction, place: Place, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: host ?? place.podIP, port: portOf(port, place.container), signal });
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.destroy();
      resolve();
    });
  });
}

function portOf(port: number | string, container: V1Container): number {
  const named = container.ports?.find(({ name }) => name === port)?.containerPort;
  const number = named ?? Number(port);
  if (!Number.isInteger(number)) throw new Error(`container ${container.name} has no port ${port}`);
  return number;
}
