import { AdapterName } from './contract/adapter-api.ts';
import { ConfigError, FlagReader, type Flags, helpText } from './contract/flags.ts';
import { LOG_LEVELS, type LogLevel } from './contract/log.ts';
import type { LogprobsMode } from './engine/port.ts';
import { type Machine, requireMemory, thisMachine } from './machine.ts';
import { isLoopback } from './transfer/loopback.ts';
import { readTlsPaths, type TlsPaths } from './transfer/tls-flags.ts';

/** Of the engine. */
const THREADS_MAX = 256;

/** An engine of another project in the same pod. */
export interface AttachedConfig {
  kind: 'vllm' | 'sglang';
  url: string;
  /** Null: it has no API key. */
  tokenFile: string | null;
  /** Where adapters lie for it, and where it sees that. */
  dir: string;
  seenAs: string;
}

export interface ServerConfig {
  model: string;
  /** Null: the engine is in this process. */
  attached: AttachedConfig | null;
  servedModelName: string | null;
  host: string;
  port: number;
  /** `*` is any; none: browsers keep pages of other origins away. */
  allowedOrigins: string[];
  adminHost: string;
  adminPort: number;
  adminTokenFile: string | null;
  /** Null: the admin API speaks plain HTTP. */
  adminTls: TlsPaths | null;
  /** Null: over TLS it passes nothing on to other pods. */
  relayCaFile: string | null;
  /** Speak vLLM's dialect of the control plane on the serving port. */
  vllmApi: boolean;
  /** Null: that dialect loads nothing. */
  loraRoot: string | null;
  adapters: { name: string; dir: string }[];
  slots: number;
  maxRank: number;
  maxAdapterBytes: number;
  hostBytes: number;
  kvBytes: number;
  maxBatch: number;
  maxBatchTokens: number;
  maxWaiting: number;
  prefixCache: boolean;
  threads: number;
  /** The engine knows which there are. */
  backend: string;
  dtype: 'auto' | 'float32' | 'bfloat16';
  /** 0: as long as the model was trained for. */
  maxModelLen: number;
  /** auto, vllm, or a folder. */
  generationConfig: string;
  logprobsMode: LogprobsMode;
  readyWhen: 'serving' | 'seeded';
  /** 0: none. */
  stepTimeoutMs: number;
  shutdownTimeoutMs: number;
  logLevel: LogLevel;
}

export const FLAGS = {
  model: { value: 'DIR', default: null, help: 'Hugging Face folder of the base model (required)' },
  'served-model-name': {
    value: 'NAME',
    default: null,
    help: "the base model's name in requests; else the folder's",
  },
  engine: {
    value: ['native', 'vllm', 'sglang'],
    default: 'native',
    help: 'what computes: this process, or a vLLM or SGLang in the same pod that it is the sidecar of',
  },
  'engine-url': { value: 'URL', default: null, help: 'of that vLLM or SGLang' },
  'engine-token-file': { value: 'FILE', default: null, help: 'its API key; else it wants none' },
  'engine-dir': {
    value: 'DIR',
    default: null,
    help: 'where adapters are written for it: a volume in memory that both see',
  },
  'engine-sees-dir': { value: 'DIR', default: null, help: 'that folder in its container; else the same' },
  host: { value: 'ADDRESS', default: '127.0.0.1', help: 'where the serving API listens' },
  port: { value: 'PORT', default: '8000', help: 'its port; 0 = any free one' },
  'allowed-origins': {
    value: 'ORIGINS',
    default: null,
    help: 'whose pages may use the serving API from a browser: * or https://a,https://b; else none',
  },
  'admin-host': { value: 'ADDRESS', default: '127.0.0.1', help: 'where the admin API listens' },
  'admin-port': { value: 'PORT', default: '8001', help: 'its port; 0 = any free one' },
  'admin-token-file': {
    value: 'FILE',
    default: null,
    help: 'bearer token of the admin API; else one is made (loopback only)',
  },
  'admin-tls-cert-file': {
    value: 'FILE',
    default: null,
    help: 'certificate of the admin API, the chain below it; else it speaks plain HTTP',
  },
  'admin-tls-key-file': { value: 'FILE', default: null, help: 'its key' },
  'admin-client-ca-file': {
    value: 'FILE',
    default: null,
    help: 'CA that signs the certificates of who may call the admin API; else no caller needs one',
  },
  'relay-ca-file': {
    value: 'FILE',
    default: null,
    help: 'CA of the admin certificates of pods that this one passes adapters on to; else over TLS to none',
  },
  adapter: { value: 'NAME=DIR', default: null, help: 'adapter to load at start; repeatable' },
  'vllm-api': {
    value: '',
    default: null,
    help: "vLLM's routes for trainers on the serving port: loading, pause, server_info and more",
  },
  'lora-root': {
    value: 'DIR',
    default: null,
    help: 'with --vllm-api: where adapters may be loaded from; else from nowhere',
  },
  slots: { value: 'N', default: '8', help: 'revisions that can be resident at once' },
  'max-rank': { value: 'N', default: '64', help: 'largest rank that is accepted' },
  'max-adapter-bytes': { value: 'BYTES', default: '512Mi', help: 'largest adapter that is accepted' },
  'host-bytes': { value: 'BYTES', default: '1Gi', help: 'host tier: RAM for revisions besides the slots' },
  'kv-bytes': { value: 'BYTES', default: '256Mi', help: 'KV cache' },
  'max-batch': { value: 'N', default: '32', help: 'sequences that run at once' },
  'max-batch-tokens': {
    value: 'N',
    default: '512',
    help: 'tokens of one engine step at most; longer prompts go in chunks',
  },
  'max-waiting': { value: 'N', default: '256', help: 'sequences that may wait; one more is answered 503' },
  'prefix-cache': {
    value: ['on', 'off'],
    default: 'on',
    help: 'requests that begin alike under one revision, scale and salt share keys and values',
  },
  threads: { value: 'N', default: '0', help: 'threads that compute, at most 256; 0 = one per processor' },
  backend: {
    value: 'NAME',
    default: 'auto',
    help: 'what computes: auto, cuda, cpu, or reference (exact, slow)',
  },
  dtype: {
    value: ['auto', 'float32', 'bfloat16'],
    default: 'auto',
    help: 'numbers that products read, and KV; auto: as the weights are stored',
  },
  'max-model-len': {
    value: 'N',
    default: '0',
    help: 'longest sequence in tokens, prompt and answer together; 0 = as the model was trained for',
  },
  'generation-config': {
    value: 'auto|vllm|DIR',
    default: 'auto',
    help: "sampling defaults: of the model's generation_config.json, none, or of another folder's",
  },
  'logprobs-mode': {
    value: ['raw', 'processed'],
    default: 'raw',
    help: 'log-probabilities where a request names none: of the logits, or of what a token was drawn from',
  },
  'ready-when': {
    value: ['serving', 'seeded'],
    default: 'serving',
    help: 'seeded: ready only after the operator said so',
  },
  'step-timeout': {
    value: 'SECONDS',
    default: '300',
    help: 'an engine step that takes longer makes /health and /ready 503; 0 = never',
  },
  'shutdown-timeout': {
    value: 'SECONDS',
    default: '25',
    help: 'how long running requests may take after SIGTERM',
  },
  'log-level': { value: LOG_LEVELS, default: 'info', help: 'logs go to stderr' },
} as const satisfies Flags;

export const HELP = helpText('node server/main.ts --model DIR [flags]', FLAGS, [
  'LORIKEET_ADAPTER holds NAME=DIR pairs with commas between.',
]);

/** Null: help is wanted. */
export function parseConfig(
  args: string[],
  environment: NodeJS.ProcessEnv,
  machine: Machine = thisMachine(),
): ServerConfig | null {
  const read = new FlagReader(FLAGS, args, environment);
  if (read.wantsHelp) return null;
  const config: ServerConfig = {
    model: read.text('model'),
    attached: readAttached(read),
    servedModelName: read.optional('served-model-name'),
    host: read.text('host'),
    port: read.port('port'),
    allowedOrigins: originsOf(read.optional('allowed-origins')),
    adminHost: read.text('admin-host'),
    adminPort: read.port('admin-port'),
    adminTokenFile: read.optional('admin-token-file'),
    adminTls: readTlsPaths({
      'admin-tls-cert-file': read.optional('admin-tls-cert-file'),
      'admin-tls-key-file': read.optional('admin-tls-key-file'),
      'admin-client-ca-file': read.optional('admin-client-ca-file'),
    }),
    relayCaFile: read.optional('relay-ca-file'),
    vllmApi: read.isOn('vllm-api'),
    loraRoot: read.optional('lora-root'),
    adapters: read.list('adapter').map(adapterOf),
    slots: read.integer('slots', 1, 4096),
    maxRank: read.integer('max-rank', 1, 512),
    maxAdapterBytes: read.bytes('max-adapter-bytes'),
    hostBytes: read.bytes('host-bytes'),
    kvBytes: read.bytes('kv-bytes'),
    maxBatch: read.integer('max-batch', 1, 4096),
    maxBatchTokens: read.integer('max-batch-tokens', 1, 1 << 20),
    maxWaiting: read.integer('max-waiting', 1, 1 << 20),
    prefixCache: read.oneOf('prefix-cache') === 'on',
    threads: read.integer('threads', 0, THREADS_MAX) || Math.min(machine.processors, THREADS_MAX),
    backend: read.text('backend'),
    dtype: read.oneOf('dtype'),
    maxModelLen: read.integer('max-model-len', 0, 2 ** 31 - 1),
    generationConfig: read.text('generation-config'),
    logprobsMode: read.oneOf('logprobs-mode'),
    readyWhen: read.oneOf('ready-when'),
    stepTimeoutMs: read.integer('step-timeout', 0, 86_400) * 1000,
    shutdownTimeoutMs: read.integer('shutdown-timeout', 0, 3600) * 1000,
    logLevel: read.oneOf('log-level'),
  };
  requireConsistent(config);
  requireMemory('--host-bytes', config.hostBytes, machine);
  return config;
}

function readAttached(read: FlagReader<typeof FLAGS>): AttachedConfig | null {
  const kind = read.oneOf('engine');
  const [url, dir] = [read.url('engine-url'), read.optional('engine-dir')];
  const tokenFile = read.optional('engine-token-file');
  const seenAs = read.optional('engine-sees-dir') ?? dir;
  if (kind === 'native') {
    if (url ?? dir ?? tokenFile ?? seenAs)
      throw new ConfigError('--engine-… flags need --engine vllm or sglang');
    return null;
  }
  if (url === null || dir === null || seenAs === null)
    throw new ConfigError(`--engine ${kind} needs --engine-url and --engine-dir`);
  if (read.isOn('vllm-api')) throw new ConfigError(`--vllm-api needs --engine native, and this is ${kind}`);
  return { kind, url, tokenFile, dir, seenAs };
}

function adapterOf(text: string): { name: string; dir: string } {
  const [name = '', ...rest] = text.split('=');
  const dir = rest.join('=');
  if (!AdapterName.safeParse(name).success || dir === '') {
    throw new ConfigError(
      `Expected NAME=DIR for --adapter, the name of A-Z a-z 0-9 . _ - : / and at the end @<number> but received ${text}`,
    );
  }
  return { name, dir };
}

/** Not only of the web: desktop apps have schemes of their own. */
const ORIGIN_PATTERN = /^(?:\*|[a-z][a-z0-9+.-]*:\/\/[^\s/,]+)$/;

/** With commas between, or as vLLM's `--allowed-origins '["*"]'`. */
function originsOf(text: string | null): string[] {
  if (text === null) return [];
  const origins = text.split(',').map((item) => item.replace(/^\s*\[?\s*"?|"?\s*\]?\s*$/g, ''));
  const wrong = origins.find((origin) => !ORIGIN_PATTERN.test(origin));
  if (wrong === undefined) return origins;
  throw new ConfigError(
    `Expected * or origins as https://ui.example with commas between for --allowed-origins but received ${text}`,
  );
}

function requireConsistent(config: ServerConfig): void {
  const names = config.adapters.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new ConfigError(`--adapter names ${twice} twice`);
  if (config.maxBatchTokens < config.maxBatch) {
    throw new ConfigError(
      `--max-batch-tokens ${config.maxBatchTokens} is less than --max-batch ${config.maxBatch}: each running sequence needs a token`,
    );
  }
  const samePlace = config.port !== 0 && config.port === config.adminPort && config.host === config.adminHost;
  if (samePlace) throw new ConfigError(`--port and --admin-port are both ${config.port} on ${config.host}`);
  const [open] = hostsOfToken(config).filter(({ host }) => !isLoopback(host));
  if (config.adminTokenFile === null && open !== undefined) {
    throw new ConfigError(`--admin-token-file is required where ${open.flag} (${open.host}) is not loopback`);
  }
  if (config.relayCaFile !== null && config.adminTls === null)
    throw new ConfigError('--relay-ca-file needs --admin-tls-cert-file');
  if (config.loraRoot !== null && !config.vllmApi) throw new ConfigError('--lora-root needs --vllm-api');
}

/** Where callers that have the admin token may change what is served. */
export function hostsOfToken({ adminHost, host, vllmApi }: ServerConfig): { flag: string; host: string }[] {
  const admin = { flag: '--admin-host', host: adminHost };
  return vllmApi ? [admin, { flag: '--host', host }] : [admin];
}
