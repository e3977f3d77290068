import {
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type OutgoingHttpHeaders,
} from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { ConnectionOptions } from 'node:tls';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { LorikeetError } from '../../server/contract/errors.ts';
import { writeTrace } from '../../server/contract/trace.ts';
import type { CaFile } from '../../server/transfer/ca-file.ts';
import type { Answer } from '../../server/transfer/refusal.ts';
import type { TlsFiles } from '../../server/transfer/tls-files.ts';
import { PUSH_ADDRESS } from '../api/names.ts';
import type { Elector } from '../kube/leader.ts';
import { silenceWatch } from './alive.ts';
import { ClientGone } from './body-reader.ts';
import { hasBody, send } from './refusal.ts';

/** Set on what one operator sends to another: who receives it and does not lead either must not send it on. */
export const FORWARDED = 'x-lorikeet-forwarded';

const REPLY_BYTES_MAX = 1 << 20;
const HOP_BY_HOP = [
  'connection',
  'keep-alive',
  'transfer-encoding',
  'te',
  'trailer',
  'upgrade',
  'expect',
  'host',
];
const RELAYED = ['content-type', 'retry-after', 'www-authenticate'];

export interface Forwarding {
  leader: Pick<Elector, 'holder'>;
  silenceMs: number;
  /** The leader has the same certificate, and is called by its address. */
  tls: Pick<TlsFiles, 'serverName'> | null;
  /** Null: whom the system trusts. */
  ca: Pick<CaFile, 'current'> | null;
}

/** Sends a request on to the leader, its body as it comes, and the leader's answer back. See alive.ts for `silenceMs`. */
export async function forward(
  request: FastifyRequest,
  reply: FastifyReply,
  { leader, silenceMs, tls, ca }: Forwarding,
): Promise<void> {
  if (request.headers[FORWARDED] !== undefined)
    throw notLeader('The operator that was said to lead does not');
  const url = leaderUrl(leader, request.url);
  const trust: ConnectionOptions = {};
  if (tls?.serverName) trust.servername = tls.serverName;
  if (ca !== null) trust.ca = await ca.current();
  await send(reply, await exchange(url, { request, reply, silenceMs, trust }));
}

function leaderUrl(leader: Pick<Elector, 'holder'>, path: string): URL {
  const address = leader.holder()?.annotations[PUSH_ADDRESS];
  const base = address === undefined || address.includes('://') ? address : `http://${address}`;
  if (base === undefined || !URL.canParse(base)) throw notLeader('No operator leads at this moment');
  // Only path and query of the request: it cannot choose the host.
  return new URL(`${new URL(base).origin}${path}`);
}

interface Forwarded {
  request: FastifyRequest;
  reply: FastifyReply;
  silenceMs: number;
  trust: ConnectionOptions;
}

function exchange(url: URL, { request, reply, silenceMs, trust }: Forwarded): Promise<Answer> {
  const { raw, headers } = request;
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const sent = { method: raw.method ?? 'GET', headers: onwardHeaders(headers), agent: false } as const;
  const onward =
    url.protocol === 'https:' ? httpsRequest(url, { ...sent, ...trust }) : httpRequest(url, sent);
  const unreachable = (cause: unknown) => reject(notLeader('The leader does not answer', cause));
  const watch = silenceWatch(silenceMs, () => onward.destroy(new Error('silent')));
  onward.on('information', watch.heard);
  onward.once('continue', () => {
    if (raw.headers.expect !== undefined) reply.raw.writeContinue();
    raw.pipe(onward);
  });
  onward.once('response', (response) => {
    raw.unpipe(onward);
    readAnswer(response, onward, watch.heard).then(resolve, unreachable);
  });
  onward.once('error', unreachable);
  onward.once('close', watch.end);
  reply.raw.once('close', () => {
    reject(new ClientGone(undefined));
    onward.destroy();
  });
  if (hasBody(headers)) onward.flushHeaders();
  else onward.end();
  return promise;
}

/** With a body it asks first: the leader can then refuse before any byte of it is on the way. */
function onwardHeaders(headers: FastifyRequest['headers']): OutgoingHttpHeaders {
  const kept = Object.entries(headers).filter(([name]) => !HOP_BY_HOP.includes(name));
  const asking = hasBody(headers) ? { expect: '100-continue' } : {};
  return { ...Object.fromEntries(kept), ...writeTrace(), ...asking, [FORWARDED]: '1', connection: 'close' };
}

async function readAnswer(
  response: IncomingMessage,
  onward: ClientRequest,
  heard: () => void,
): Promise<Answer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    heard();
    parts.push(part);
    bytes += part.length;
    if (bytes > REPLY_BYTES_MAX) throw new Error('the answer is too long');
  }
  onward.destroy();
  const headers = RELAYED.flatMap((name) => {
    const value = response.headers[name];
    return value === undefined ? [] : [[name, String(value)] as const];
  });
  return {
    status: response.statusCode ?? 502,
    headers: Object.fromEntries(headers),
    body: Buffer.concat(parts).toString('utf8'),
  };
}

function notLeader(message: string, cause?: unknown): LorikeetError {
  return new LorikeetError('not_leader', `${message}; try again.`, { cause });
}
