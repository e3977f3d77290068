import type { FastifyReply, FastifyRequest } from 'fastify';
import { RollbackRequest } from '../../server/contract/adapter-api.ts';
import { readJsonAs } from '../../server/transfer/request-body.ts';
import type { PublishResult, RollbackResult } from '../adapter/publish/publication.ts';
import { readTimeout } from './asked.ts';
import { isEverywhere, type PushDeps, rounded } from './push.ts';

/** As of a pod, but that the spec of the object says what becomes of running requests. */
const Body = RollbackRequest.omit({ inFlight: true }).strict();

export interface RollbackTarget {
  namespace: string;
  name: string;
  askedBy: string;
  authMs: number;
}

export interface RollbackReply extends PublishResult, Pick<RollbackResult, 'previous'> {
  timings: { authMs: number; stageMs: number; activateMs: number; totalMs: number };
}

/**
 * One rollback from its headers to its reply. It counts as a push without bytes, and waits for no turn: of both, the one
 * accepted last holds.
 */
export async function rollback(
  request: FastifyRequest,
  reply: FastifyReply,
  { namespace, name, askedBy, authMs }: RollbackTarget,
  { publisher, budget, clock }: Pick<PushDeps, 'publisher' | 'budget' | 'clock'>,
): Promise<RollbackReply> {
  const startedAt = clock.monotonicMs() - authMs;
  const { timeout } = (request.query ?? {}) as Record<string, unknown>;
  const timeoutMs = readTimeout(timeout);
  const giveBack = budget.take(namespace, 0);
  try {
    const { to, expectCurrent = null } = await readJsonAs(Body, {
      request: request.raw,
      response: reply.raw,
    });
    const askedAt = clock.monotonicMs();
    const signal = AbortSignal.timeout(timeoutMs);
    const order = { namespace, name, to, expectCurrent, askedBy, signal };
    const { stageMs, ...result } = await publisher.rollback(order);
    const endedAt = clock.monotonicMs();
    const timings = {
      authMs,
      stageMs,
      activateMs: endedAt - askedAt - stageMs,
      totalMs: endedAt - startedAt,
    };
    void reply.code(isEverywhere(result, 'active') ? 200 : 202);
    return { ...result, timings: rounded(timings) };
  } finally {
    giveBack();
  }
}
