import type { FastifyReply } from 'fastify';

/**
 * Tells the operator that forwarded a request, every so often, that this process still runs: a turn may be waited for
 * long, and a process that is stopped keeps its connections open.
 */
export function sayAlive(reply: FastifyReply, everyMs: number): void {
  const timer = setInterval(() => {
    if (reply.sent || reply.raw.headersSent) clearInterval(timer);
    else if (reply.raw.socket !== null) reply.raw.writeProcessing();
  }, everyMs);
  reply.raw.once('close', () => clearInterval(timer));
}

/** Calls `expire` after `silenceMs` without `heard`. */
export function silenceWatch(silenceMs: number, expire: () => void): { heard(): void; end(): void } {
  let timer = setTimeout(expire, silenceMs);
  const end = () => clearTimeout(timer);
  const heard = () => {
    end();
    timer = setTimeout(expire, silenceMs);
  };
  return { heard, end };
}
