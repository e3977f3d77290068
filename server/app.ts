import { basename, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import { putDirectory } from './adapters/load-directory.ts';
import { residencyOf } from './adapters/pod-state.ts';
import { Registry } from './adapters/registry.ts';
import { buildAdminApp } from './admin/admin-app.ts';
import { trustedToken } from './admin-token.ts';
import type { ServerConfig } from './config.ts';
import { ConfigError } from './contract/flags.ts';
import { NativeEngine } from './engine/native.ts';
import { StepWatch } from './engine/step-watch.ts';
import { requireMemory, thisMachine } from './machine.ts';
import { type LoadedModel, loadModel, withTokenizerEnd } from './model/load.ts';
import { ByteBudget, budgetOfHeap } from './openai/byte-budget.ts';
import { allowOrigins } from './openai/cors.ts';
import { Gate } from './openai/gate.ts';
import { listen } from './openai/http-app.ts';
import type { NotReady, ServedModel, Serving } from './openai/serving.ts';
import { buildServingApp } from './openai/serving-app.ts';
import { createMetrics, type Metrics } from './telemetry/metrics.ts';
import { ChatTemplate } from './text/chat-template.ts';
import { Encoder } from './text/encoder.ts';
import { Tokenizer } from './text/tokenizer.ts';
import { filesIn } from './transfer/adapter-folder.ts';
import { CaFile } from './transfer/ca-file.ts';
import { isLoopback } from './transfer/loopback.ts';
import { TlsFiles } from './transfer/tls-files.ts';
import { speakVllm } from './vllm/dialect.ts';
import { LoraRoot } from './vllm/lora-root.ts';

/** For clients to read the error that ended their stream, before they are cut off. */
const LAST_BYTES_MS = 100;

export interface Server {
  listening: { serving: string; admin: string };
  /** Settles with the reason once the engine can serve nobody any more; the server is unready from then on. */
  failed: Promise<string>;
  /** Takes no new requests, lets running ones finish within the deadline, then ends the engine. */
  close(deadlineMs: number): Promise<void>;
}

/** Opens the model, loads the adapters of the command line, and listens. */
export async function startServer(config: ServerConfig, log: Logger): Promise<Server> {
  const token = await trustedToken(config, log);
  const tls = config.adminTls === null ? null : await TlsFiles.read(config.adminTls);
  const relayCa = config.relayCaFile === null ? null : await CaFile.read(config.relayCaFile);
  const loraRoot = await openLoraRoot(config.loraRoot);
  const read = await loadModel(config.model, {
    generationConfig: config.generationConfig,
    ...(config.maxModelLen === 0 ? {} : { contextTokens: config.maxModelLen }),
  });
  const tokenizer = await Tokenizer.load(config.model);
  const loaded = withTokenizerEnd(read, tokenizer.eosTokenId);
  const template = await ChatTemplate.load(config.model);
  for (const reason of template?.problems ?? []) log.warn({ reason }, 'chats will be refused');
  const encoder = new Encoder(tokenizer, config.model);
  const engine = openEngine(config, loaded, log);
  const model = describeBase(config, loaded, engine);
  let shuttingDown = false;

  const registry = new Registry({
    engine,
    baseModel: { name: model.name, digest: loaded.digest, geometry: loaded.geometry },
    limits: { hostBytes: config.hostBytes, maxRank: config.maxRank, maxAdapterBytes: config.maxAdapterBytes },
    waiting: { max: config.maxWaiting, turnMax: config.maxBatch },
    mayShadowBase: config.vllmApi,
    log,
  });
  const metrics = openMetrics(model.name, engine, registry);
  engine.onTimed(metrics);
  for (const { name, dir } of config.adapters) await putDirectory(registry, name, filesIn(dir));

  const notReady = (): NotReady => {
    if (shuttingDown) return { code: 'shutting_down', message: 'The server is shutting down.' };
    if (engine.failed !== null) return { code: 'engine_failed', message: 'The engine failed.' };
    if (config.readyWhen === 'serving' || registry.seeded) return null;
    return { code: 'not_seeded', message: 'The operator has not said yet that all adapters are here.' };
  };
  const gate = new Gate(config.maxWaiting);
  const stand: Serving = {
    model,
    engine,
    adapters: registry.lookup,
    tokenizer,
    encoder,
    template,
    metrics,
    budget: new ByteBudget(budgetOfHeap()),
    gate,
    notReady,
    log,
  };
  const serving = buildServingApp(stand);
  allowOrigins(serving, config.allowedOrigins);
  if (config.vllmApi) {
    speakVllm(serving, {
      serving: stand,
      registry,
      engine: { dtype: engine.info.dtype, slots: engine.info.slots, maxRank: config.maxRank },
      resetPrefixCache: () => engine.resetPrefixCache(),
      isIdle: () => isIdle(engine),
      root: loraRoot,
      token: isLoopback(config.host) ? null : () => token.current(),
    });
  }
  const admin = buildAdminApp({ registry, token: () => token.current(), tls, relayCa, metrics, log });
  const listening = {
    serving: await listen(serving, config.host, config.port),
    admin: await listen(admin, config.adminHost, config.adminPort),
  };
  const { backend, dtype, memoryBytes } = engine.info;
  // At warn, because without the path nobody can use the admin API.
  if (token.made) log.warn({ adminTokenFile: token.path }, 'made an admin token for this process');
  log.info({ model: model.name, backend, dtype, memoryBytes, ...listening }, 'serving');

  return {
    listening,
    failed: new Promise((settle) => engine.onFailed(settle)),
    async close(deadlineMs) {
      shuttingDown = true;
      gate.open();
      await closeWithin(deadlineMs, serving, engine);
      await encoder.close();
      admin.server.closeAllConnections();
      await admin.close();
    },
  };
}

async function openLoraRoot(dir: string | null): Promise<LoraRoot | null> {
  if (dir === null) return null;
  return await LoraRoot.at(dir).catch((cause: NodeJS.ErrnoException) => {
    throw new ConfigError(`--lora-root ${dir} cannot be opened: ${cause.code}`, { cause });
  });
}

function openEngine(config: ServerConfig, loaded: LoadedModel, log: Logger): NativeEngine {
  const {
    backend,
    dtype,
    slots,
    maxRank,
    kvBytes,
    maxBatch,
    maxBatchTokens,
    maxWaiting,
    threads,
    prefixCache,
  } = config;
  const bounds = { slots, maxRank, kvBytes, maxBatch, maxBatchTokens, maxWaiting, threads, prefixCache };
  if (NativeEngine.usesHostMemory(backend)) requireMemory('--kv-bytes', kvBytes, thisMachine());
  try {
    const progress = log.isLevelEnabled('info');
    const options = { model: loaded.descriptor, backend, dtype, progress, ...bounds };
    return NativeEngine.open(options, new StepWatch(config.stepTimeoutMs));
  } catch (error) {
    const { code, field, message } = error as Error & { code?: string; field?: string };
    if (code === 'unsupported_backend' || field === 'dtype') throw new ConfigError(message);
    throw error;
  }
}

function isIdle(engine: NativeEngine): boolean {
  const { running, waiting } = engine.snapshot();
  return running + waiting === 0;
}

function describeBase(config: ServerConfig, loaded: LoadedModel, engine: NativeEngine): ServedModel {
  const { kvBlocks, blockTokens } = engine.info;
  return {
    name: config.servedModelName ?? basename(resolve(config.model)),
    createdAt: Math.floor(Date.now() / 1000),
    maxTokens: Math.min(loaded.contextTokens, kvBlocks * blockTokens),
    vocabSize: loaded.descriptor.config.vocabSize,
    eosTokenIds: loaded.eosTokenIds,
    requestDefaults: { ...loaded.samplingDefaults, logprobs_mode: config.logprobsMode },
  };
}

function openMetrics(baseModel: string, engine: NativeEngine, registry: Registry): Metrics {
  const { blockTokens, kvBlocks, pages } = engine.info;
  return createMetrics({
    baseModel,
    blockTokens,
    kvBlocks,
    pages,
    snapshot: () => engine.snapshot(),
    hostTier: registry.tier,
    residency: () => residencyOf(registry.state()),
    current: () => registry.current(),
  });
}

/** Closing the app ends with its last response. Past the deadline the engine is closed, which ends them all. */
export async function closeWithin(
  deadlineMs: number,
  app: FastifyInstance,
  engine: { close(): Promise<void> | void },
): Promise<void> {
  const cancel = new AbortController();
  const late = delay(deadlineMs, 'late', { signal: cancel.signal }).catch(() => undefined);
  const closed = app.close();
  const outcome = await Promise.race([closed, late]);
  cancel.abort();
  await engine.close();
  if (outcome !== 'late') return;
  await delay(LAST_BYTES_MS);
  app.server.closeAllConnections();
  await closed;
}
