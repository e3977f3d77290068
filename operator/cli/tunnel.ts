import { Duplex, PassThrough } from 'node:stream';
import type { KubeConfig } from '@kubernetes/client-node';
import { WebSocketHandler } from '@kubernetes/client-node/dist/web-socket-handler.js';
import { CommandFailure } from './failure.ts';

export interface PodPort {
  namespace: string;
  pod: string;
  port: number;
}

/** What is used of the library's WebSocket. */
interface Socket {
  send(data: Buffer, done: (error?: Error) => void): void;
  /** Without waiting for the other side to say goodbye, which may still be reading. */
  terminate(): void;
  pause(): void;
  resume(): void;
  addEventListener(type: 'close' | 'error', listener: () => void): void;
}

const DATA = 0;
const ERROR = 1;
/** Each channel begins with the number of the port. */
const PORT_BYTES = 2;
const CONNECT_MS = 15_000;

/**
 * A connection to a port of a pod through the API server, as `kubectl port-forward` makes it. The library's own PortForward
 * takes whatever it is given and so would hold a whole adapter in memory; here a write is done when it has gone out.
 */
export async function openTunnel(kubeconfig: KubeConfig, at: PodPort): Promise<Duplex> {
  const path = `/api/v1/namespaces/${at.namespace}/pods/${at.pod}/portforward?ports=${at.port}`;
  const unused = { stdin: new PassThrough(), stdout: new PassThrough(), stderr: new PassThrough() };
  const handler = new WebSocketHandler(kubeconfig, undefined, unused);
  const tunnel = new Tunnel(at);
  const connecting = handler.connect(path, null, (channel, data) => tunnel.receive(channel, data));
  // One that opens after it was given up would keep the process.
  connecting.then(
    (socket) => tunnel.destroyed && (socket as unknown as Socket).terminate(),
    () => {},
  );
  try {
    const opened = await Promise.race([connecting, timeout(at)]);
    tunnel.attach(opened as unknown as Socket);
  } catch (error) {
    tunnel.destroy();
    throw notOpened(error, at);
  }
  return tunnel;
}

class Tunnel extends Duplex {
  readonly #at: PodPort;
  readonly #seen = [0, 0];
  #socket: Socket | null = null;

  constructor(at: PodPort) {
    super();
    this.#at = at;
  }

  attach(socket: Socket): void {
    this.#socket = socket;
    socket.addEventListener('close', () => this.push(null));
  }

  /** One message of the API server; true: go on. */
  receive(channel: number, message: Buffer): boolean {
    if (channel !== DATA && channel !== ERROR) return true;
    const skipped = Math.min(message.length, PORT_BYTES - (this.#seen[channel] ?? 0));
    this.#seen[channel] = (this.#seen[channel] ?? 0) + skipped;
    const data = message.subarray(skipped);
    if (data.length === 0) return true;
    if (channel === ERROR) {
      this.destroy(
        new Error(`${this.#at.pod} port ${this.#at.port}: ${data.toString('utf8').slice(0, 300)}`),
      );
    } else if (!this.push(data)) {
      this.#socket?.pause();
    }
    return true;
  }

  override _read(): void {
    this.#socket?.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    const framed = Buffer.allocUnsafe(chunk.length + 1);
    framed[0] = DATA;
    chunk.copy(framed, 1);
    this.#socket?.send(framed, (error) => done(error ?? null));
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket?.terminate();
    done(error);
  }
}

function timeout(at: PodPort): Promise<never> {
  return new Promise((_, reject) => {
    setTimeout(
      () => reject(new Error(`no port-forward to ${at.pod} in ${CONNECT_MS / 1000} s`)),
      CONNECT_MS,
    ).unref();
  });
}

function notOpened(error: unknown, { namespace, pod, port }: PodPort): CommandFailure {
  const message = String((error as { message?: unknown }).message ?? error);
  const [, status] = /Unexpected server response: (\d+)/.exec(message) ?? [];
  const words: Record<string, string> = {
    '401': 'the API server does not take the credentials',
    '403': 'you may not forward ports of it',
    '404': 'the pod is gone',
  };
  const why = words[status ?? ''] ?? message;
  const todo =
    status === '403'
      ? `Ask for the right to create pods/portforward in namespace ${namespace} (the ClusterRole edit has it).`
      : null;
  return new CommandFailure(`port ${port} of pod ${namespace}/${pod} cannot be reached: ${why}`, {
    todo,
    cause: error,
  });
}
