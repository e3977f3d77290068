import type { FastifyReply, FastifyRequest } from 'fastify';
import { requireBodySize } from '../../server/transfer/limits.ts';
import type { PublishResult } from '../adapter/publish/publication.ts';
import type { Log } from '../kube/log.ts';
import type { Spool } from '../spool/spool.ts';
import { type Asked, readAsked } from './asked.ts';
import { type BodyLimits, BodyReader, ClientGone } from './body-reader.ts';
import type { BranchLimits } from './branch.ts';
import type { Publisher } from './publisher.ts';
import { type ReceivedPush, receive } from './receive.ts';
import type { Budget, Turns } from './turns.ts';

export interface PushDeps {
  publisher: Publisher;
  spool: Spool;
  turns: Turns;
  budget: Budget;
  log: Log;
  body: Omit<BodyLimits, 'maxBytes'>;
  branch: BranchLimits;
}

export interface PushTarget {
  namespace: string;
  name: string;
  pushedBy: string;
  authMs: number;
}

export interface PushReply extends PublishResult {
  timings: { authMs: number; receiveMs: number; stageMs: number; activateMs: number; totalMs: number };
}

/** One push from its headers to its reply: size, turn, body, publication. */
export async function push(
  request: FastifyRequest,
  reply: FastifyReply,
  target: PushTarget,
  deps: PushDeps,
): Promise<PushReply> {
  const startedAt = performance.now() - target.authMs;
  const asked = readAsked(request.raw, request.query);
  const gone = goneSignal(reply);
  const { maxBytes } = deps.publisher.context(target.namespace, target.name);
  requireBodySize(asked.declaredBytes ?? 0, maxBytes);
  const giveBack = deps.budget.take(asked.declaredBytes ?? maxBytes);
  try {
    const endTurn = await deps.turns.take(`${target.namespace}/${target.name}`, gone);
    try {
      const received = await takeBody(request, reply, { asked, target, deps });
      const publishedAt = performance.now();
      const result = await publish(asked, received, target, deps);
      const endedAt = performance.now();
      const { receiveMs, stageMs } = received;
      const activateMs = endedAt - publishedAt;
      const timings = { authMs: target.authMs, receiveMs, stageMs, activateMs, totalMs: endedAt - startedAt };
      const pods = result.pods.map((pod) => ({ ...pod, ms: tenths(pod.ms) }));
      void reply.code(isEverywhere(result, asked.wait) ? 200 : 202);
      return { ...result, pods, timings: rounded(timings) };
    } finally {
      endTurn();
    }
  } finally {
    giveBack();
  }
}

interface Taking {
  asked: Asked;
  target: PushTarget;
  deps: PushDeps;
}

async function takeBody(request: FastifyRequest, reply: FastifyReply, taking: Taking): Promise<ReceivedPush> {
  const { asked, target, deps } = taking;
  // Once more: while this push waited for its turn, pods came and went and the one before it set a config.
  const context = deps.publisher.context(target.namespace, target.name);
  const fence = deps.publisher.fenceFor(target.namespace, target.name);
  const reader = new BodyReader(request.raw, { ...deps.body, maxBytes: context.maxBytes });
  if (request.headers.expect !== undefined) reply.raw.writeContinue();
  const { spool, log, branch: limits } = deps;
  return await receive(reader, { asked, context, fence, spool, limits, log });
}

/** From here on a client that goes away changes nothing: it has sent all, and its retry is a no-op. */
async function publish(
  asked: Asked,
  received: ReceivedPush,
  target: PushTarget,
  deps: PushDeps,
): Promise<PublishResult> {
  const { namespace, name, pushedBy } = target;
  const { digest, bytes, rank, targetModules, config, staged, stageMs } = received;
  const { step, ifMatch, wait, timeoutMs } = asked;
  const signal = AbortSignal.timeout(Math.max(1, Math.ceil(timeoutMs - stageMs)));
  const what = { namespace, name, digest, step, bytes, rank, targetModules, config };
  return await deps.publisher.publish({ ...what, pushedBy, ifMatch, staged, wait, signal });
}

/** 200 promises that every later request to any desired pod gets this revision or a newer one; less is 202. */
function isEverywhere({ pods }: PublishResult, wait: Asked['wait']): boolean {
  return pods.every(({ state }) => state === 'active' || (state === 'staged' && wait === 'staged'));
}

function goneSignal(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.once('close', () => controller.abort(new ClientGone(undefined)));
  return controller.signal;
}

function rounded<T extends Record<string, number>>(timings: T): T {
  return Object.fromEntries(Object.entries(timings).map(([key, ms]) => [key, tenths(ms)])) as T;
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}
