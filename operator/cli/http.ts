import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { connect as connectTcp, isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import { CommandFailure, EXIT } from './failure.ts';

/** Where calls go: each has a connection of its own. */
export interface Target {
  /** What people are told of it. */
  told: string;
  /** The Host header. */
  host: string;
  /** In front of every path. */
  basePath: string;
  /** Null: plain HTTP. */
  tls: TlsName | null;
  connect(): Promise<Duplex>;
}

export interface TlsName {
  servername: string;
  /** Absent: whom the system trusts. */
  ca?: string | undefined;
  cert?: string | undefined;
  key?: string | undefined;
}

export interface HttpCall {
  method: 'GET' | 'PUT' | 'POST';
  path: string;
  headers?: Record<string, string | number>;
  body?: Buffer | Upload | undefined;
  /** Of the whole call; an upload: after its last byte. */
  timeoutMs: number;
}

/** A body that is read as it goes out, and only when it is asked for (100 Continue). */
export interface Upload {
  bytes: number;
  chunks(): AsyncIterable<Buffer>;
  onSent(bytes: number): void;
}

const CONNECT_MS = 10_000;

/** Straight to a URL. */
export function urlTarget(url: URL, ca: string | undefined): Target {
  const isTls = url.protocol === 'https:';
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const port = Number(url.port || (isTls ? 443 : 80));
  return {
    told: url.origin,
    host: url.host,
    basePath: url.pathname.replace(/\/+$/, ''),
    tls: isTls ? { servername: isIP(host) ? '' : host, ca } : null,
    connect: () =>
      new Promise((resolve, reject) => {
        const socket = connectTcp({ host, port, timeout: CONNECT_MS });
        const fail = (error: Error) => {
          socket.destroy();
          reject(new CommandFailure(`${url.origin} cannot be reached: ${error.message}`, { cause: error }));
        };
        socket.once('error', fail);
        socket.once('timeout', () => fail(new Error(`no connection in ${CONNECT_MS / 1000} s`)));
        socket.once('connect', () => {
          socket.removeListener('error', fail);
          socket.setTimeout(0);
          resolve(socket);
        });
      }),
  };
}

/** One call; the reply's body is still to be read, and `done` must be called after. */
export async function exchange(
  target: Target,
  call: HttpCall,
): Promise<{ reply: IncomingMessage; done(): void }> {
  const raw = await target.connect();
  const socket = target.tls === null ? raw : connectTls({ socket: raw, ...target.tls });
  const { body } = call;
  const isUpload = body !== undefined && !Buffer.isBuffer(body);
  const length = body === undefined ? undefined : isUpload ? body.bytes : body.length;
  const sent = request({
    createConnection: () => socket,
    method: call.method,
    path: `${target.basePath}${call.path}`,
    headers: {
      host: target.host,
      'user-agent': 'kubectl-lora',
      ...(length !== undefined && { 'content-length': length }),
      ...(isUpload && { expect: '100-continue' }),
      ...call.headers,
    },
  });
  const done = () => {
    sent.destroy();
    raw.destroy();
  };
  try {
    const reply = await answered(sent, { call, upload: isUpload ? body : null });
    return { reply, done };
  } catch (error) {
    done();
    throw error instanceof CommandFailure ? error : broken(error, target);
  }
}

function answered(
  sent: ClientRequest,
  { call, upload }: { call: HttpCall; upload: Upload | null },
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    const arm = () => {
      const late = `no answer in ${Math.ceil(call.timeoutMs / 1000)} s`;
      timer = setTimeout(() => reject(new CommandFailure(late, { exit: EXIT.timedOut })), call.timeoutMs);
    };
    let isAnswered = false;
    sent.once('response', (reply) => {
      isAnswered = true;
      clearTimeout(timer);
      resolve(reply);
    });
    sent.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    if (upload === null) {
      arm();
      sent.end(call.body);
      return;
    }
    sent.once('continue', () => {
      send(sent, upload, () => isAnswered).then(arm, reject);
    });
    sent.flushHeaders();
  });
}

/** A refusal may come while the body goes out: the rest of it is not sent then. */
async function send(
  sent: ClientRequest,
  { chunks, onSent }: Upload,
  isAnswered: () => boolean,
): Promise<void> {
  for await (const chunk of chunks()) {
    if (isAnswered() || sent.destroyed) return;
    await new Promise<void>((resolve, reject) => {
      sent.write(chunk, (error) => (error && !isAnswered() ? reject(error) : resolve()));
    });
    onSent(chunk.length);
  }
  sent.end();
}

export async function readReply(reply: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of reply as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bytesMax) throw new CommandFailure(`the answer has more than ${bytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function broken(error: unknown, target: Target): CommandFailure {
  const { message, code = '' } = error as NodeJS.ErrnoException;
  const isTls = /CERT|TLS|SELF_SIGNED|UNABLE_TO/.test(code);
  return new CommandFailure(`the call of ${target.told} broke off: ${message}`, {
    todo: isTls ? 'Name who signs its certificate with --push-ca-file.' : null,
    cause: error,
  });
}
