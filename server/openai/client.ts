import type { FastifyReply } from 'fastify';
import { Disconnected } from './errors.ts';

/** One for all: each answer ends with one, and nobody looks where it was made. */
const CLOSED = new Disconnected('The connection is closed.');

/** Aborts once nobody can read the answer any more; to be asked for before the first await, or a close is missed. */
export function clientGone({ raw }: FastifyReply): AbortSignal {
  const controller = new AbortController();
  const leave = () => controller.abort(CLOSED);
  if (raw.destroyed || raw.closed) leave();
  else raw.once('close', leave);
  return controller.signal;
}
