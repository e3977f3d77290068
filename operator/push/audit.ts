import type { FastifyRequest } from 'fastify';
import { HEADER } from '../../server/contract/adapter-api.ts';
import type { PublishResult } from '../adapter/publish/publication.ts';
import type { Log } from '../kube/log.ts';

export type Action = 'push' | 'rollback';

/** One of each push and rollback of a known caller, with these fields always, in the leader's log at level info. */
export interface AuditLine {
  action: Action;
  /** The account whose token it was. */
  by: string;
  namespace: string;
  adapter: string;
  /** Null: it was refused before it was known. */
  digest: string | null;
  /** Of a refusal: what was announced, where that can be read. */
  step: number | null;
  bytes: number | null;
  /** ok, noop, client_gone, or the code of the refusal. */
  outcome: string;
  /** Where it went to, as `pod-0 active`: the first of them. */
  pods: string[];
  podsTotal: number;
}

const PODS_MAX = 64;
const NUMBER = /^\d{1,15}$/;

type Who = Pick<AuditLine, 'action' | 'by' | 'namespace' | 'adapter'>;

export function auditAnswered(log: Log, who: Who, result: PublishResult, more: object): void {
  const { revision, step, bytes, noop, pods } = result;
  const named = pods.slice(0, PODS_MAX).map(({ name, state }) => `${name} ${state}`);
  const outcome = noop ? 'noop' : 'ok';
  write(log, { ...who, digest: revision, step, bytes, outcome, pods: named, podsTotal: pods.length }, more);
}

export function auditRefused(log: Log, request: FastifyRequest, outcome: string, more: object = {}): void {
  const who = whoAsks(request);
  if (who === null) return;
  const announced = (name: string) => {
    const value = request.headers[name];
    return typeof value === 'string' && NUMBER.test(value) ? Number(value) : null;
  };
  const what = { digest: null, step: announced(HEADER.step), bytes: announced('content-length') };
  write(log, { ...who, ...what, outcome, pods: [], podsTotal: 0 }, more);
}

/** Null: nobody known asks for a change. */
export function whoAsks({ caller, params, routeOptions }: FastifyRequest): Who | null {
  const { action } = routeOptions.config;
  if (caller === null || action === undefined) return null;
  const { namespace, name } = params as { namespace: string; name: string };
  return { action, by: caller.username, namespace, adapter: name };
}

function write(log: Log, line: AuditLine, more: object): void {
  log.info({ ...line, ...more }, 'audit');
}
