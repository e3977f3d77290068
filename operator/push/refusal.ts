import type { IncomingMessage } from 'node:http';
import type { FastifyReply } from 'fastify';
import { LorikeetError } from '../../server/contract/errors.ts';
import { type Answer, closeWith } from '../../server/transfer/refusal.ts';
import { PodUnreachable } from '../../server/transfer/unreachable.ts';

export function refusalOf(error: unknown): LorikeetError {
  if (error instanceof LorikeetError) return error;
  if (error instanceof PodUnreachable)
    return new LorikeetError('pod_failed', 'A pod did not answer', { cause: error });
  if (error instanceof Error && error.name === 'TimeoutError') {
    const message = 'It was not accepted in time: nothing has changed; try again';
    return new LorikeetError('timeout', message, { cause: error });
  }
  const { code, statusCode } = error as { code?: unknown; statusCode?: unknown };
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') {
    return new LorikeetError(
      'unsupported_media_type',
      'Expected application/octet-stream for content-type, or none',
      {
        field: 'content-type',
      },
    );
  }
  if (statusCode === 400 || statusCode === 414) {
    return new LorikeetError('malformed_request', 'The request cannot be read');
  }
  return new LorikeetError('internal', 'The operator failed; its log says how', { cause: error });
}

/**
 * Sends an answer. Where the body has not been read to its end, none of the rest is: the answer goes out with a FIN, the
 * socket stays open for a moment so that no reset overtakes it, and is destroyed. Node's own way would read and drop the
 * rest of the body, or close with bytes unread, which is a reset.
 */
export async function send(reply: FastifyReply, answer: Answer): Promise<void> {
  const { raw } = reply.request;
  if (!isUnread(raw)) {
    await reply.code(answer.status).headers(answer.headers).send(answer.body);
    return;
  }
  reply.hijack();
  // A pipelined request whose predecessor is still being answered has no socket to write to yet.
  if (reply.raw.socket === null) raw.socket.destroy();
  else closeWith(raw.socket, { ...answer, headers: { ...textsOf(reply), ...answer.headers } });
}

/** What hooks have put on the answer. */
function textsOf(reply: FastifyReply): Record<string, string> {
  return Object.fromEntries(Object.entries(reply.getHeaders()).map(([name, value]) => [name, String(value)]));
}

function isUnread(raw: IncomingMessage): boolean {
  return hasBody(raw.headers) && !raw.complete;
}

/** What the headers announce. */
export function hasBody(headers: IncomingMessage['headers']): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}
