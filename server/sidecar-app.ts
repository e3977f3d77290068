import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { Pool } from 'undici';
import { putDirectory } from './adapters/load-directory.ts';
import { residencyOf } from './adapters/pod-state.ts';
import { Registry } from './adapters/registry.ts';
import { buildAdminApp } from './admin/admin-app.ts';
import { trustedToken } from './admin-token.ts';
import { closeWithin } from './app.ts';
import type { AttachedConfig, ServerConfig } from './config.ts';
import { LorikeetError } from './contract/errors.ts';
import type { Running } from './contract/program.ts';
import { AdapterFolders } from './engine/adapter-folders.ts';
import { AttachedEngine, engineName } from './engine/attached.ts';
import { EngineHttp } from './engine/engine-http.ts';
import type { EngineFacts, EngineLoader } from './engine/loader.ts';
import { SglangLoader } from './engine/sglang.ts';
import { VllmLoader } from './engine/vllm.ts';
import { readIdentity } from './model/identity.ts';
import { ByteBudget, budgetOfHeap } from './openai/byte-budget.ts';
import { allowOrigins } from './openai/cors.ts';
import { listen } from './openai/http-app.ts';
import type { NotReady } from './openai/serving.ts';
import { Forwarder } from './sidecar/forward.ts';
import { mergedMetrics } from './sidecar/metrics.ts';
import { buildSidecarApp } from './sidecar/serving-app.ts';
import { createMetrics, type Metrics } from './telemetry/metrics.ts';
import { filesIn } from './transfer/adapter-folder.ts';
import { CaFile } from './transfer/ca-file.ts';
import { TlsFiles } from './transfer/tls-files.ts';
import { TokenFile } from './transfer/token-file.ts';
import { serverInfo } from './vllm/server-info.ts';
import { weightInfo } from './vllm/weight-info.ts';

const WAIT_MS = 1_000;
const SAY_MS = 30_000;
const SCRAPE_MS = 5_000;
const LOADERS = { vllm: VllmLoader, sglang: SglangLoader };

/** The server as the sidecar of a vLLM or SGLang: the engine computes, adapters and revisions are ours. */
export async function startSidecar(
  config: ServerConfig,
  attached: AttachedConfig,
  log: Logger,
): Promise<Running> {
  const token = await trustedToken(config, log);
  const tls = config.adminTls === null ? null : await TlsFiles.read(config.adminTls);
  const relayCa = config.relayCaFile === null ? null : await CaFile.read(config.relayCaFile);
  const engineToken =
    attached.tokenFile === null ? null : await TokenFile.read(attached.tokenFile, 'engine-token-file');
  const http = new EngineHttp({
    url: attached.url,
    token: engineToken === null ? null : () => engineToken.current(),
  });
  const folders = await AdapterFolders.open(attached.dir, attached.seenAs, log);
  const { digest, geometry } = await readIdentity(config.model);
  const loader = new LOADERS[attached.kind](http);
  const facts = await factsOf(loader, log);
  const slots = facts.adaptersMax ?? config.slots;
  const maxRank = facts.rankMax ?? config.maxRank;
  const engine = await AttachedEngine.open({
    ...{ loader, folders, slots, log },
    reads: facts,
  });
  // Of its end the connection that looks keep open tells before the next look.
  http.onDisconnect(() => void engine.suspect());
  const baseModel = config.servedModelName ?? facts.baseName;
  let shuttingDown = false;

  const registry = new Registry({
    engine,
    baseModel: { name: baseModel, digest, geometry },
    limits: { hostBytes: config.hostBytes, maxRank, maxAdapterBytes: config.maxAdapterBytes },
    waiting: { max: config.maxWaiting, turnMax: config.maxBatch },
    log,
  });
  for (const { name, dir } of config.adapters) await putDirectory(registry, name, filesIn(dir));
  const metrics = openMetrics(baseModel, engine, registry);
  const { origin, pathname } = new URL(http.url);
  const dispatcher = new Pool(origin, { headersTimeout: 0, bodyTimeout: 0, connections: null });
  const serves = (name: string) => engine.serves(name);
  const forwarder = new Forwarder({
    dispatcher,
    prefix: pathname.replace(/\/$/, ''),
    adapters: registry.lookup,
    engine: {
      baseName: facts.baseName,
      namedIn: (body) => loader.namedIn(body, baseModel),
      lacksAdapter: (status, text) => loader.lacksAdapter(status, text),
      asksFor: (revision) => loader.asksFor(engineName(revision), facts.baseName),
      lease: (target) => engine.lease(target),
      serves,
      suspect: () => engine.suspect(),
    },
    baseModel,
    metrics,
    log,
  });
  const notReady = (): NotReady => {
    if (shuttingDown) return { code: 'shutting_down', message: 'The server is shutting down.' };
    if (engine.away !== null) return { code: 'engine_failed', message: `The engine is away: ${engine.away}` };
    if (config.readyWhen === 'serving' || registry.seeded) return null;
    return { code: 'not_seeded', message: 'The operator has not said yet that all adapters are here.' };
  };
  const serving = buildSidecarApp({
    model: {
      name: baseModel,
      createdAt: Math.floor(Date.now() / 1000),
      maxTokens: facts.contextTokens ?? 0,
      vocabSize: 0,
      eosTokenIds: [],
    },
    adapters: registry.lookup,
    forwarder,
    metrics,
    async metricsText() {
      const scraped = http.text({
        method: 'GET',
        path: '/metrics',
        signal: AbortSignal.timeout(SCRAPE_MS),
        timeoutMs: SCRAPE_MS,
      });
      return mergedMetrics(await scraped.catch(() => ''), await metrics.text());
    },
    serverInfo: (query) =>
      serverInfo(
        { name: baseModel, maxTokens: facts.contextTokens ?? 0 },
        { dtype: 'auto', slots, maxRank },
        query,
      ),
    weightInfo: (query) => weightInfo(registry, query),
    notReady,
    budget: new ByteBudget(budgetOfHeap()),
    log,
  });
  allowOrigins(serving, config.allowedOrigins);
  const away = () =>
    engine.away === null ? null : new LorikeetError('engine_away', `The engine is away: ${engine.away}`);
  const admin = buildAdminApp({ registry, token: () => token.current(), tls, relayCa, metrics, log, away });
  // Whoever watches is told nothing of a pod that serves nobody.
  engine.onAway((reason) => reason !== null && admin.server.closeAllConnections());
  const listening = {
    serving: await listen(serving, config.host, config.port),
    admin: await listen(admin, config.adminHost, config.adminPort),
  };
  if (token.made) log.warn({ adminTokenFile: token.path }, 'made an admin token for this process');
  log.info(
    { model: baseModel, engine: attached.kind, url: http.url, slots, maxRank, ...listening },
    'serving',
  );

  return {
    listening,
    // The engine may come back.
    failed: new Promise(() => undefined),
    async close(deadlineMs) {
      shuttingDown = true;
      await closeWithin(deadlineMs, serving, { close: () => dispatcher.destroy() });
      engine.close();
      await http.close();
      admin.server.closeAllConnections();
      await admin.close();
    },
  };
}

/** A vLLM takes minutes to begin. */
async function factsOf(loader: EngineLoader, log: Logger): Promise<EngineFacts> {
  let saidMs = Number.NEGATIVE_INFINITY;
  for (;;) {
    try {
      return await loader.facts(new AbortController().signal);
    } catch (error) {
      if (performance.now() - saidMs > SAY_MS) {
        saidMs = performance.now();
        log.info({ reason: (error as Error).message }, 'waiting for the engine');
      }
      await delay(WAIT_MS);
    }
  }
}

/** Of the engine's own work its own metrics tell. */
function openMetrics(baseModel: string, engine: AttachedEngine, registry: Registry): Metrics {
  const none = {
    promptTokens: 0,
    generatedTokens: 0,
    preemptions: 0,
    prefixTokensQueried: 0,
    prefixTokensHit: 0,
  };
  return createMetrics({
    baseModel,
    blockTokens: 0,
    kvBlocks: 0,
    pages: 0,
    snapshot: () => ({
      ...engine.snapshot(),
      ...none,
      running: engine.running,
      waiting: 0,
      waitingAdapters: [],
    }),
    hostTier: registry.tier,
    residency: () => residencyOf(registry.state()),
    current: () => registry.current(),
  });
}
