import { setTimeout as delay } from 'node:timers/promises';
import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import { Agent } from 'undici';
import { ConfigError } from '../contract/flags.ts';
import type { Running } from '../contract/program.ts';
import { ByteBudget, budgetOfHeap } from '../openai/byte-budget.ts';
import { Gate } from '../openai/gate.ts';
import { answer, buildHttpApp, listen } from '../openai/http-app.ts';
import { CaFile } from '../transfer/ca-file.ts';
import { type ClientTls, connectorOf } from '../transfer/client-tls.ts';
import { KeyPairFiles } from '../transfer/key-pair-files.ts';
import { isLoopback } from '../transfer/loopback.ts';
import { TokenFile } from '../transfer/token-file.ts';
import { LoraRoot } from '../vllm/lora-root.ts';
import { Pauses } from '../vllm/pauses.ts';
import { addVllmRoutes } from '../vllm/routes.ts';
import type { BridgeConfig } from './config.ts';
import { Facts } from './facts.ts';
import { byDns, Fleet, notReady } from './fleet.ts';
import { Forwarder } from './forward.ts';
import { FleetLoads } from './loads.ts';
import { Names } from './names.ts';
import { openTarget } from './target.ts';

const CONNECT_MS = 3_000;
const GENERATED = ['/v1/completions', '/v1/chat/completions'];
const CONVERTED = ['/tokenize', '/detokenize'];

export interface Bridge extends Running {
  listening: { serving: string };
}

/** Finds the pods, and listens as if it were one of them. */
export async function startBridge(config: BridgeConfig, log: Logger): Promise<Bridge> {
  const pushToken = await TokenFile.read(config.pushTokenFile, 'push-token-file');
  const token = config.tokenFile === null ? null : await trustedToken(config.tokenFile, config.host);
  const root = await openRoot(config.loraRoot);
  const dispatcher = new Agent({ connect: { timeout: CONNECT_MS } });
  const pushing = new Agent({
    connect: connectorOf(await pushTlsOf(config), CONNECT_MS),
    allowH2: false,
  });
  const { serving, keep } = config;
  const fleet = new Fleet({
    discover: typeof serving === 'string' ? byDns(serving) : async () => serving,
    dispatcher,
    log,
  });
  const names = new Names(keep);
  const facts = new Facts({ fleet, names, keep });
  const baseModel = () => facts.baseModel();
  const calls = { dispatcher: pushing, token: () => pushToken.current() };
  const loads = new FleetLoads({
    root,
    names,
    fleet,
    target: openTarget(config.push, baseModel, calls),
    baseModel,
    keep,
    syncMs: config.syncTimeoutMs,
    log,
  });
  const gate = new Gate(config.maxInFlight);
  const forwarder = new Forwarder({
    fleet,
    gate,
    names,
    dispatcher,
    baseModel,
    inFlightMax: config.maxInFlight,
    silenceMs: config.requestTimeoutMs,
    log,
  });

  const app = buildHttpApp({
    budget: new ByteBudget(budgetOfHeap()),
    metrics: { requestDone },
    connectionsMax: connectionsFor(config.maxInFlight),
    log,
  });
  addRoutes(app, { fleet, facts, forwarder });
  addVllmRoutes(app, {
    load: (body, options) => loads.load(body, options),
    unload: (body) => loads.unload(body),
    serverInfo: (query) => facts.serverInfo(query),
    weightInfo: (query) => facts.weightInfo(query),
    resetPrefixCache: () => fleet.resetPrefixCache(),
    pauses: new Pauses(gate, () => true),
    generate: (request, reply) => forwarder.generate('/inference/v1/generate', request, reply),
    token: token === null ? null : () => token.current(),
  });
  await fleet.start();
  const listening = { serving: await listen(app, config.host, config.port) };
  log.info({ push: config.push, pods: fleet.ready().map(({ url }) => url), ...listening }, 'bridging');

  return {
    listening,
    // The fleet may come back.
    failed: new Promise(() => undefined),
    async close(deadlineMs) {
      gate.open();
      await closeWithin(deadlineMs, app);
      fleet.stop();
      await Promise.all([dispatcher.destroy(), pushing.destroy()]);
    },
  };
}

interface Served {
  fleet: Fleet;
  facts: Facts;
  forwarder: Forwarder;
}

function addRoutes(app: FastifyInstance, { fleet, facts, forwarder }: Served): void {
  for (const path of GENERATED) app.post(path, (request, reply) => forwarder.generate(path, request, reply));
  for (const path of CONVERTED) app.post(path, (request, reply) => forwarder.convert(path, request, reply));
  app.get('/v1/models', () => facts.models());
  app.get<{ Params: { '*': string } }>('/v1/models/*', ({ params }) => facts.model(params['*']));
  for (const path of ['/health', '/ready']) {
    app.get(path, async (_, reply) => {
      const pods = fleet.ready().length;
      return pods === 0 ? answer(reply, notReady()) : { status: 'ok', pods };
    });
  }
}

/** One for each request that may be in flight, besides those that are kept free for probes. */
function connectionsFor(inFlightMax: number): number {
  return Math.ceil(inFlightMax * (16 / 15)) + 16;
}

/** The log of each request is at debug; there are no metrics. */
function requestDone(): void {}

/** As a pod's: where strangers could use it, a token that they may come to know is not used. */
async function trustedToken(file: string, host: string): Promise<TokenFile> {
  const token = await TokenFile.read(file, 'token-file');
  const [doubt] = token.doubts;
  if (doubt !== undefined && !isLoopback(host)) throw new ConfigError(`--token-file ${doubt}`);
  return token;
}

async function openRoot(dir: string): Promise<LoraRoot> {
  return await LoraRoot.at(dir).catch((cause: NodeJS.ErrnoException) => {
    throw new ConfigError(`--lora-root ${dir} cannot be opened: ${cause.code}`, { cause });
  });
}

async function pushTlsOf({ pushCaFile, pushPair, pushServerName }: BridgeConfig): Promise<ClientTls> {
  const pair = pushPair === null ? null : await KeyPairFiles.read(pushPair);
  return {
    ca: pushCaFile === null ? null : await CaFile.read(pushCaFile),
    pair: pair === null ? undefined : () => pair.current(),
    serverName: () => pushServerName,
  };
}

/** Past the deadline what still runs is cut off. */
async function closeWithin(deadlineMs: number, app: FastifyInstance): Promise<void> {
  const cancel = new AbortController();
  const late = delay(deadlineMs, 'late', { signal: cancel.signal }).catch(() => undefined);
  const closed = app.close();
  const outcome = await Promise.race([closed, late]);
  cancel.abort();
  if (outcome === 'late') app.server.closeAllConnections();
  await closed;
}
