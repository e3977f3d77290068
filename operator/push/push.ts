import type { FastifyReply, FastifyRequest } from 'fastify';
import type { HashThread } from '../../server/transfer/hash-thread.ts';
import { requireBodySize } from '../../server/transfer/limits.ts';
import type { PublishResult } from '../adapter/publish/publication.ts';
import type { Clock } from '../kube/clock.ts';
import type { Log } from '../kube/log.ts';
import type { Spool } from '../spool/spool.ts';
import { type Asked, readAsked } from './asked.ts';
import { type BodyLimits, BodyReader, ClientGone } from './body-reader.ts';
import type { FanOutLimits } from './fan-out.ts';
import type { Publisher } from './publisher.ts';
import { type ReceivedPush, receive } from './receive.ts';
import type { Budget, Turns } from './turns.ts';

export interface PushDeps {
  publisher: Publisher;
  spool: Spool;
  hashing: HashThread;
  turns: Turns;
  budget: Budget;
  stopping: AbortSignal;
  clock: Clock;
  log: Log;
  body: Omit<BodyLimits, 'maxBytes' | 'stopping'>;
  branch: FanOutLimits;
}

export interface PushTarget {
  namespace: string;
  name: string;
  pushedBy: string;
  authMs: number;
}

export type PushTimings = {
  authMs: number;
  receiveMs: number;
  stageMs: number;
  activateMs: number;
  totalMs: number;
};

export interface PushReply extends PublishResult {
  timings: PushTimings;
}

/** One push from its headers to its reply: size, turn, body, publication. */
export async function push(
  request: FastifyRequest,
  reply: FastifyReply,
  target: PushTarget,
  deps: PushDeps,
): Promise<PushReply> {
  const { publisher, spool, hashing, budget, turns, stopping, clock, log, branch: limits } = deps;
  const { namespace, name, authMs } = target;
  const startedAt = clock.monotonicMs() - authMs;
  const asked = readAsked(request.raw, request.query);
  const gone = goneSignal(reply);
  const { maxBytes } = publisher.context(namespace, name);
  requireBodySize(asked.declaredBytes ?? 0, maxBytes);
  publisher.admit(namespace, name, asked.declaredBytes ?? 0);
  const giveBack = budget.take(namespace, asked.declaredBytes ?? maxBytes);
  try {
    const endTurn = await turns.take(`${namespace}/${name}`, asked.step, AbortSignal.any([gone, stopping]));
    try {
      // Once more: while this push waited for its turn, pods came and went and the one before it set a config.
      const context = publisher.context(namespace, name);
      const reader = new BodyReader(
        request.raw,
        { ...deps.body, maxBytes: context.maxBytes, stopping },
        clock,
      );
      if (request.headers.expect !== undefined) reply.raw.writeContinue();
      const received = await receive(reader, { asked, context, spool, hashing, limits, clock, log });
      const publishedAt = clock.monotonicMs();
      const what = { ...received, servedName: context.servedName };
      const result = await publish(asked, what, target, deps);
      const endedAt = clock.monotonicMs();
      const { receiveMs, stageMs } = received;
      const activateMs = endedAt - publishedAt;
      const timings = { authMs, receiveMs, stageMs, activateMs, totalMs: endedAt - startedAt };
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

/** From here on a client that goes away changes nothing: it has sent all, and its retry is a no-op. */
async function publish(
  asked: Asked,
  received: ReceivedPush & { servedName: string },
  target: PushTarget,
  deps: PushDeps,
): Promise<PublishResult> {
  const { namespace, name, pushedBy } = target;
  const { servedName, digest, bytes, rank, targetModules, config, staged, stageMs } = received;
  const { step, ifMatch, wait, timeoutMs } = asked;
  const signal = AbortSignal.timeout(Math.max(1, Math.ceil(timeoutMs - stageMs)));
  const what = { namespace, name, servedName, digest, step, bytes, rank, targetModules, config };
  return await deps.publisher.publish({ ...what, pushedBy, ifMatch, staged, wait, signal });
}

/** 200 promises that every later request to any desired pod gets this revision or what came after it; less is 202. */
export function isEverywhere({ pods }: PublishResult, wait: Asked['wait']): boolean {
  return pods.every(({ state }) => state === 'active' || (state === 'staged' && wait === 'staged'));
}

function goneSignal(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.once('close', () => controller.abort(new ClientGone(undefined)));
  return controller.signal;
}

export function rounded<T extends Record<string, number>>(timings: T): T {
  return Object.fromEntries(Object.entries(timings).map(([key, ms]) => [key, tenths(ms)])) as T;
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}
