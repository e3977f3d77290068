import type { FastifyInstance } from 'fastify';
import type { Dispatcher } from 'undici';
import { LorikeetError } from '../server/contract/errors.ts';
import { CaFile } from '../server/transfer/ca-file.ts';
import { TlsFiles, urlOf } from '../server/transfer/tls-files.ts';
import { RevisionPublisher } from './adapter/publish/publisher.ts';
import { PUSH_ADDRESS } from './api/names.ts';
import { assemble } from './assemble.ts';
import type { OperatorConfig } from './config.ts';
import { systemClock, within } from './kube/clock.ts';
import { Elector } from './kube/leader.ts';
import type { Log } from './kube/log.ts';
import { type PacedLane, Rest } from './kube/rest.ts';
import { secretsOf } from './kube/secrets.ts';
import { readAdminToken } from './pods/admin-token.ts';
import type { PodTimeouts } from './pods/client.ts';
import { openDispatcher } from './pods/dispatcher.ts';
import { Fleet } from './pods/fleet.ts';
import { readPodTls } from './pods/tls.ts';
import { TokenAuth } from './push/auth.ts';
import { Running } from './push/running.ts';
import { buildPushApp } from './push/server.ts';
import { run } from './run.ts';
import type { RangeLimits } from './source/ranges.ts';
import { Spool } from './spool/spool.ts';
import { registerGauges } from './telemetry/gauges.ts';
import { buildHealthApp } from './telemetry/health.ts';
import { OperatorMetrics } from './telemetry/metrics.ts';
import { registerReflectors } from './telemetry/reflectors.ts';
import { openQueues, Watches, type WatchOptions } from './watches.ts';

/** What pushes under way get to end when the process stops, and what their answers get then. */
const DRAIN_MS = 25_000;
const CLOSE_MS = 5_000;

export interface Operator {
  listening: { push: string; metrics: string };
  /** Stops acting, writes what is pending, gives the lease back. */
  close(): Promise<void>;
}

/** What is otherwise made here or has its default, for whoever runs an operator that must end abruptly or look again soon. */
export interface Seams {
  dispatcher?: Dispatcher;
  watches?: Pick<WatchOptions, 'relistMs' | 'inactivityMs'>;
  statusIntervalMs?: number;
  podTimeouts?: PodTimeouts;
  sourceRanges?: Partial<RangeLimits>;
}

/** Puts the parts together and starts them. `die` is called where the process may not go on. */
export async function startOperator(
  config: OperatorConfig,
  log: Log,
  die: (error: unknown, message: string) => void,
  seams: Seams = {},
): Promise<Operator> {
  const tls = config.pushTls === null ? null : await TlsFiles.read(config.pushTls);
  const ca = config.pushCaFile === null ? null : await CaFile.read(config.pushCaFile);
  const metrics = new OperatorMetrics(() => systemClock.monotonicMs());
  // Whatever was called while it led and comes to its turn after that, as in a process that was frozen, is not sent.
  const leads = () => elector.leading !== null;
  const onWait = (lane: PacedLane, waitMs: number) => metrics.apiWaited(lane, waitMs);
  const rest = Rest.fromKubeconfig({ onWait, mayWrite: leads });
  const spool = new Spool({ dir: config.spoolDir, maxBytes: config.spoolBytes });
  const queues = openQueues(log, (reason) => metrics.failure(reason));
  const watches = new Watches({
    rest,
    log,
    namespace: config.watchNamespace ?? undefined,
    queues,
    ...seams.watches,
  });
  const dispatcher = seams.dispatcher ?? openDispatcher();
  const readToken = readAdminToken(secretsOf(rest));
  const readTls = readPodTls(secretsOf(rest));
  const fleet = new Fleet({
    ...watches,
    readToken,
    readTls,
    dispatcher,
    clock: systemClock,
    log,
    timeouts: seams.podTimeouts,
    mayAct: leads,
  });
  const annotations: Record<string, string> = {};
  const elector: Elector = new Elector({
    rest,
    log,
    namespace: config.leaderNamespace,
    name: config.leaderName,
    identity: config.identity,
    annotations,
    onLost: () => die(new Error('another operator may lead now'), 'the lease was lost'),
  });
  const parts = assemble({
    ...{ config, rest, log, metrics, spool, queues, watches, fleet, elector },
    statusIntervalMs: seams.statusIntervalMs,
    sourceRanges: seams.sourceRanges,
  });
  const { records } = parts.adapterDeps;
  watches.follow(fleet, (key) => records.get(key)?.waitsForRoom ?? false);
  registerGauges(metrics.registry, { ...watches, fleet, leader: elector, queues, spool, clock: systemClock });
  const { adapters, pools, pods } = watches;
  registerReflectors(metrics.registry, { adapters, pools, pods });

  const notReady = () => (watches.synced ? null : 'the caches are not filled yet');
  const health = buildHealthApp({ registry: metrics.registry, notReady });
  const auth = new TokenAuth({ rest, audience: config.pushAudience, log });
  const publisher = new RevisionPublisher(parts.adapterDeps);
  const running = new Running();
  const draining = new AbortController();
  const push = buildPushApp({
    ...{ tls, ca },
    ...{ publisher, auth, spool, log, metrics, running },
    leader: elector,
    clock: systemClock,
    stopping: draining.signal,
    relayFrom: config.relayFrom,
  });
  const listening = {
    push: await listen(push, config.pushHost, config.pushPort),
    metrics: await listen(health, config.metricsHost, config.metricsPort),
  };
  if (config.advertiseHost !== null) {
    const { protocol, port } = new URL(listening.push);
    annotations[PUSH_ADDRESS] = `${protocol}//${bracketed(config.advertiseHost)}:${port}`;
  }

  const stop = run({ ...parts, log, queues, watches, fleet, elector }, die);
  const close = async () => {
    // New ones are taken meanwhile: the other operators still send them here.
    await within(systemClock, DRAIN_MS, running.settled());
    draining.abort(new LorikeetError('not_leader', 'This operator stops; try again.'));
    await within(systemClock, CLOSE_MS, push.close());
    push.server.closeAllConnections();
    await stop();
    await Promise.all([health.close(), dispatcher.destroy(), rest.close()]);
  };
  return { listening, close };
}

async function listen(app: FastifyInstance, host: string, port: number): Promise<string> {
  await app.listen({ host, port });
  return urlOf(app.server);
}

function bracketed(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}
