import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import type { SeenPod } from '../objects.ts';

const CONNECT_TIMEOUT_MS = 1_000;

/** Ways from this machine to pods: straight where it has a route to their network, else through `kubectl port-forward`. */
export class Reach {
  readonly #command: string;
  readonly #args: string[];
  readonly #urls = new Map<string, Promise<string>>();
  readonly #forwards: ChildProcess[] = [];

  /** `args` point kubectl at the cluster and the namespace of a pod comes after them. */
  constructor(command: string, args: string[]) {
    this.#command = command;
    this.#args = args;
  }

  url(pod: SeenPod, namespace: string, port: number): Promise<string> {
    const key = `${pod.uid}:${port}`;
    const known = this.#urls.get(key);
    if (known) return known;
    const url = this.#find(pod, namespace, port);
    this.#urls.set(key, url);
    url.catch(() => this.#urls.delete(key));
    return url;
  }

  close(): void {
    for (const forward of this.#forwards) forward.kill();
  }

  async #find({ name, ip }: SeenPod, namespace: string, port: number): Promise<string> {
    if (await answers(ip, port)) return `http://${ip.includes(':') ? `[${ip}]` : ip}:${port}`;
    return await this.#forward(name, namespace, port);
  }

  async #forward(pod: string, namespace: string, port: number): Promise<string> {
    const args = [...this.#args, 'port-forward', '-n', namespace, `pod/${pod}`, `:${port}`];
    const forward = spawn(this.#command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#forwards.push(forward);
    let complaint = '';
    forward.stderr.on('data', (chunk) => {
      complaint = `${complaint}${chunk}`.slice(-2_000);
    });
    const ended = once(forward, 'close').then(() => {
      throw new Error(
        `port ${port} of pod ${pod} cannot be reached, neither straight nor by kubectl: ${complaint}`,
      );
    });
    ended.catch(() => {});
    const lines = createInterface(forward.stdout)[Symbol.asyncIterator]();
    const first = await Promise.race([lines.next(), ended]);
    forward.stdout.resume();
    const [, local] = /^Forwarding from (\S+) ->/.exec(String(first?.value)) ?? [];
    if (local === undefined) return await ended;
    return `http://${local}`;
  }
}

function answers(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: CONNECT_TIMEOUT_MS });
    const end = (does: boolean) => {
      socket.destroy();
      resolve(does);
    };
    socket.once('connect', () => end(true));
    socket.once('timeout', () => end(false));
    socket.once('error', () => end(false));
  });
}
