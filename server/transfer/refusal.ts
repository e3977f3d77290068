// Refusals as HTTP answers, also for connections that never became a request or whose body is not read.

import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { LorikeetError } from '../contract/errors.ts';

export interface Answer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** A client that is still sending reads the answer in this time; then its connection is cut. */
const LINGER_MS = 1_000;

export function answerOf(error: LorikeetError): Answer {
  const { status, retryAfterSeconds } = error;
  const headers: Record<string, string> = { 'content-type': 'application/json; charset=utf-8' };
  if (retryAfterSeconds !== null) headers['retry-after'] = String(retryAfterSeconds);
  if (status === 401) headers['www-authenticate'] = 'Bearer';
  return { status, headers, body: JSON.stringify(error) };
}

/** For a connection on which no more is to be read. */
export function closeWith(socket: Socket, { status, headers, body }: Answer): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const all = { ...headers, 'content-length': String(Buffer.byteLength(body)), connection: 'close' };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}`);
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${lines.join('\r\n')}\r\n\r\n${body}`);
  setTimeout(() => socket.destroy(), LINGER_MS).unref();
}

/** Answers what Node's HTTP parser refuses, which never becomes a request; `answer` puts it in an API's own words. */
export function refuseUnreadable(
  headerBytesMax: number,
  answer: (error: LorikeetError) => Answer = answerOf,
) {
  return (error: Error & { code?: string }, socket: Socket): void => {
    closeWith(socket, answer(unreadable(error.code, headerBytesMax)));
  };
}

function unreadable(code: string | undefined, headerBytesMax: number): LorikeetError {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return new LorikeetError('header_too_large', `Expected at most ${headerBytesMax} bytes of headers`);
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new LorikeetError('request_timeout', 'Expected the whole request sooner');
    default:
      return new LorikeetError('malformed_request', 'Expected an HTTP/1.1 request');
  }
}
