import { type IncomingMessage, request as plain } from 'node:http';
import { request as encrypted } from 'node:https';
import { type Answer, answerOf, type Client } from './client.ts';

export interface PartialCall {
  method: string;
  path: string;
  headers: Record<string, string>;
  /** What is sent of the body; `content-length` may promise more. */
  part: Buffer;
  /** Whether the sending side of the connection is closed after it. */
  isCut: boolean;
}

/** Sends less of a body than it announces. Null: the server closed the connection, or said nothing in that time. */
export async function callInPart(client: Client, call: PartialCall, waitMs: number): Promise<Answer | null> {
  const { method, path, part, isCut } = call;
  const url = new URL(client.url + path);
  const done = Promise.withResolvers<IncomingMessage | null>();
  const request = (url.protocol === 'https:' ? encrypted : plain)(url, {
    method,
    headers: { ...client.authorization, ...call.headers },
    agent: false,
    ...client.tls,
  });
  request.once('response', done.resolve).once('error', () => done.resolve(null));
  request.once('close', () => done.resolve(null));
  const timer = setTimeout(() => done.resolve(null), waitMs);
  request.flushHeaders();
  if (part.length > 0) request.write(part);
  if (isCut) request.write('', () => request.socket?.end());
  try {
    const response = await done.promise;
    if (response === null) return null;
    const chunks = await response.toArray().catch(() => []);
    const { statusCode = 0, headers } = response;
    return answerOf(`${method} ${path}`, statusCode, { headers, bytes: Buffer.concat(chunks) });
  } finally {
    clearTimeout(timer);
    request.destroy();
  }
}
