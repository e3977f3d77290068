import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { buffer } from 'node:stream/consumers';

export interface Call {
  method: string;
  url: string;
  headers: IncomingHttpHeaders;
}

export interface Said {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

/** What a server does wrong; all else is as the server behind the double does it. */
export interface Defect {
  /** Changes what is asked. */
  call?(call: Call): Call;
  /** Changes a JSON body. */
  body?(call: Call, body: Record<string, unknown>): object;
  answer?(said: Said, call: Call): Said;
  /** One block of a stream; null loses it. */
  event?(block: string, call: Call): string | null;
  /** The answer to a request that breaks off. */
  torn?: string;
}

export interface Double {
  url: string;
  close(): Promise<void>;
}

/** Stands before a server and is as right as that, but for the defect. */
export async function openDouble(target: string, defect: Defect): Promise<Double> {
  const server = createServer((incoming, outgoing) => passOn(target, defect, { incoming, outgoing }));
  server.on('checkContinue', (incoming, outgoing) => {
    outgoing.writeContinue();
    passOn(target, defect, { incoming, outgoing });
  });
  server.on('clientError', (_error: Error, socket: Socket) => {
    if (socket.writable) socket.end(defect.torn ?? 'HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n');
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    close: async () => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}

interface Exchange {
  incoming: IncomingMessage;
  outgoing: ServerResponse;
}

function passOn(target: string, defect: Defect, { incoming, outgoing }: Exchange): void {
  const { method = '', url = '', headers } = incoming;
  const asked = { method, url, headers };
  const call = defect.call?.({ ...asked, headers: { ...headers } }) ?? asked;
  const onward = request(target + call.url, { method: call.method, headers: call.headers, agent: false });
  onward.on('error', () => outgoing.destroy());
  outgoing.once('close', () => onward.destroy());
  onward.once('response', (reply) => {
    answer(defect, { call, reply, outgoing }).catch(() => outgoing.destroy());
  });
  send(defect, { call, incoming, onward }).catch(() => onward.destroy());
}

async function send(
  defect: Defect,
  { call, incoming, onward }: { call: Call; incoming: IncomingMessage; onward: ReturnType<typeof request> },
): Promise<void> {
  if (defect.body === undefined || call.headers['content-type'] !== 'application/json') {
    onward.flushHeaders();
    incoming.pipe(onward);
    return;
  }
  const body = await buffer(incoming);
  const changed = JSON.stringify(defect.body(call, JSON.parse(body.toString())));
  onward.setHeader('content-length', Buffer.byteLength(changed));
  onward.end(changed);
}

async function answer(
  defect: Defect,
  { call, reply, outgoing }: { call: Call; reply: IncomingMessage; outgoing: ServerResponse },
): Promise<void> {
  const { statusCode: status = 0, headers } = reply;
  if (headers['content-type']?.startsWith('text/event-stream')) {
    outgoing.writeHead(status, headers).flushHeaders();
    await passEvents(defect, { call, reply, outgoing });
    return;
  }
  const said = { status, headers, body: await buffer(reply) };
  const { status: code, headers: fields, body } = defect.answer?.(said, call) ?? said;
  const { 'transfer-encoding': _, ...rest } = fields;
  outgoing.writeHead(code, { ...rest, 'content-length': body.length }).end(body);
}

async function passEvents(
  defect: Defect,
  { call, reply, outgoing }: { call: Call; reply: IncomingMessage; outgoing: ServerResponse },
): Promise<void> {
  let unread = '';
  for await (const text of reply.setEncoding('utf8')) {
    const blocks = (unread + text).split('\n\n');
    unread = blocks.pop() ?? '';
    for (const block of blocks) {
      const passed = defect.event === undefined ? block : defect.event(block, call);
      if (passed !== null) outgoing.write(`${passed}\n\n`);
    }
  }
  outgoing.end(unread);
}
