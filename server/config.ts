import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { AdapterName } from './contract/adapter-api.ts';
import { LOG_LEVELS, type LogLevel } from './telemetry/log.ts';

export interface ServerConfig {
  model: string;
  servedModelName: string | null;
  host: string;
  port: number;
  adminHost: string;
  adminPort: number;
  adminTokenFile: string | null;
  adapters: { name: string; dir: string }[];
  slots: number;
  maxRank: number;
  maxAdapterBytes: number;
  hostBytes: number;
  kvBytes: number;
  maxBatch: number;
  maxBatchTokens: number;
  maxWaiting: number;
  threads: number;
  /** The engine knows which there are. */
  backend: string;
  dtype: 'auto' | 'float32' | 'bfloat16';
  readyWhen: 'serving' | 'seeded';
  shutdownTimeoutMs: number;
  logLevel: LogLevel;
}

/** A flag or environment variable that cannot be used; the process ends with status 2. */
export class ConfigError extends Error {}

interface Flag {
  /** Shown in --help after the name. */
  value: string;
  /** Null: the flag has none and may be absent. */
  default: string | null;
  help: string;
  repeatable?: boolean;
}

export const FLAGS = {
  model: { value: 'DIR', default: null, help: 'Hugging Face folder of the base model (required)' },
  'served-model-name': {
    value: 'NAME',
    default: null,
    help: "the base model's name in requests; else the folder's",
  },
  host: { value: 'ADDRESS', default: '127.0.0.1', help: 'where the serving API listens' },
  port: { value: 'PORT', default: '8000', help: 'its port; 0 = any free one' },
  'admin-host': { value: 'ADDRESS', default: '127.0.0.1', help: 'where the admin API listens' },
  'admin-port': { value: 'PORT', default: '8001', help: 'its port; 0 = any free one' },
  'admin-token-file': {
    value: 'FILE',
    default: null,
    help: 'bearer token of the admin API; else one is made (loopback only)',
  },
  adapter: {
    value: 'NAME=DIR',
    default: null,
    help: 'adapter to load at start; repeatable',
    repeatable: true,
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
    help: 'tokens of one engine step; longer prompts go in chunks',
  },
  'max-waiting': { value: 'N', default: '256', help: 'sequences that may wait; one more is answered 503' },
  threads: { value: 'N', default: '0', help: 'threads that compute; 0 = one per processor' },
  backend: {
    value: 'NAME',
    default: 'auto',
    help: 'what computes: auto, cuda, cpu, or reference (exact, slow)',
  },
  dtype: {
    value: 'auto|float32|bfloat16',
    default: 'auto',
    help: 'numbers that products read, and KV; auto: as the weights are stored',
  },
  'ready-when': {
    value: 'serving|seeded',
    default: 'serving',
    help: 'seeded: ready only after the operator said so',
  },
  'shutdown-timeout': {
    value: 'SECONDS',
    default: '25',
    help: 'how long running requests may take after SIGTERM',
  },
  'log-level': { value: LOG_LEVELS.join('|'), default: 'info', help: 'logs go to stderr' },
} as const satisfies Record<string, Flag>;

type FlagName = keyof typeof FLAGS;

export function environmentName(flag: string): string {
  return `LORIKEET_${flag.toUpperCase().replaceAll('-', '_')}`;
}

export function helpText(): string {
  const rows = Object.entries<Flag>(FLAGS).map(([name, flag]) => {
    const fallback = flag.default === null ? '' : ` [${flag.default}]`;
    return `  ${`--${name} ${flag.value}`.padEnd(38)} ${flag.help}${fallback}`;
  });
  return [
    'Usage: node server/main.ts --model DIR [flags]',
    '',
    ...rows,
    `  ${'--help'.padEnd(38)} this text`,
    '',
    'Each flag is also an environment variable: --max-rank is LORIKEET_MAX_RANK; a flag wins over its variable.',
    'LORIKEET_ADAPTER holds NAME=DIR pairs with commas between. BYTES may end in Ki, Mi, Gi, Ti, k, M, G or T.',
    '',
  ].join('\n');
}

/** Null: help is wanted. */
export function parseConfig(args: string[], environment: NodeJS.ProcessEnv): ServerConfig | null {
  const given = parseFlags(args);
  if (given.help === true) return null;
  const read = new FlagReader(given, environment);
  const config: ServerConfig = {
    model: read.required('model'),
    servedModelName: read.text('served-model-name'),
    host: read.required('host'),
    port: read.integer('port', 0, 65_535),
    adminHost: read.required('admin-host'),
    adminPort: read.integer('admin-port', 0, 65_535),
    adminTokenFile: read.text('admin-token-file'),
    adapters: read.list('adapter').map(adapterOf),
    slots: read.integer('slots', 1, 4096),
    maxRank: read.integer('max-rank', 1, 512),
    maxAdapterBytes: read.bytes('max-adapter-bytes'),
    hostBytes: read.bytes('host-bytes'),
    kvBytes: read.bytes('kv-bytes'),
    maxBatch: read.integer('max-batch', 1, 4096),
    maxBatchTokens: read.integer('max-batch-tokens', 1, 1 << 20),
    maxWaiting: read.integer('max-waiting', 1, 1 << 20),
    threads: read.integer('threads', 0, 1024) || availableParallelism(),
    backend: read.required('backend'),
    dtype: read.oneOf('dtype', ['auto', 'float32', 'bfloat16']),
    readyWhen: read.oneOf('ready-when', ['serving', 'seeded']),
    shutdownTimeoutMs: read.integer('shutdown-timeout', 0, 3600) * 1000,
    logLevel: read.oneOf('log-level', LOG_LEVELS),
  };
  requireConsistent(config);
  return config;
}

type Given = Record<string, string | boolean | (string | boolean)[] | undefined>;

function parseFlags(args: string[]): Given {
  const options: Record<string, { type: 'string' | 'boolean'; multiple?: boolean }> = {
    help: { type: 'boolean' },
  };
  for (const name of Object.keys(FLAGS)) options[name] = { type: 'string', multiple: true };
  try {
    return parseArgs({ args, options, strict: true, allowPositionals: false }).values;
  } catch (cause) {
    throw new ConfigError((cause as Error).message, { cause });
  }
}

class FlagReader {
  private readonly given: Given;
  private readonly environment: NodeJS.ProcessEnv;

  constructor(given: Given, environment: NodeJS.ProcessEnv) {
    this.given = given;
    this.environment = environment;
  }

  list(name: FlagName): string[] {
    const given = this.given[name] as string[] | undefined;
    if (given) return given;
    return (this.fromEnvironment(name) ?? '').split(',').filter((item) => item !== '');
  }

  text(name: FlagName): string | null {
    const given = (this.given[name] ?? []) as string[];
    if (given.length > 1) throw new ConfigError(`--${name} was given ${given.length} times; once is allowed`);
    const value = given[0] ?? this.fromEnvironment(name) ?? FLAGS[name].default;
    if (value === '') throw new ConfigError(`Expected a value for --${name} but received an empty one`);
    return value;
  }

  required(name: FlagName): string {
    const value = this.text(name);
    if (value === null) throw new ConfigError(`--${name} is required (or ${environmentName(name)})`);
    return value;
  }

  integer(name: FlagName, min: number, max: number): number {
    const text = this.required(name);
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max) {
      throw new ConfigError(
        `Expected a whole number from ${min} to ${max} for --${name} but received ${text}`,
      );
    }
    return value;
  }

  bytes(name: FlagName): number {
    const text = this.required(name);
    const match = /^(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|k|M|G|T)?$/.exec(text);
    const value = match
      ? Math.floor(Number(match[1]) * BYTE_UNITS[(match[2] ?? '') as keyof typeof BYTE_UNITS])
      : 0;
    if (!Number.isSafeInteger(value) || value <= 0) {
      throw new ConfigError(`Expected a size as 512Mi or 1000000 for --${name} but received ${text}`);
    }
    return value;
  }

  oneOf<T extends string>(name: FlagName, choices: readonly T[]): T {
    const text = this.required(name);
    const choice = choices.find((candidate) => candidate === text);
    if (choice === undefined) {
      throw new ConfigError(`Expected one of ${choices.join(', ')} for --${name} but received ${text}`);
    }
    return choice;
  }

  private fromEnvironment(name: FlagName): string | null {
    const value = this.environment[environmentName(name)];
    // Kubernetes sets LORIKEET_PORT=tcp://… in every pod beside a Service named "lorikeet".
    if (value === undefined || value === '' || value.startsWith('tcp://')) return null;
    return value;
  }
}

const BYTE_UNITS = {
  '': 1,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
} as const;

function adapterOf(text: string): { name: string; dir: string } {
  const [name = '', ...rest] = text.split('=');
  const dir = rest.join('=');
  if (!AdapterName.safeParse(name).success || dir === '') {
    throw new ConfigError(`Expected NAME=DIR with a lower-case name for --adapter but received ${text}`);
  }
  return { name, dir };
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
  if (config.adminTokenFile === null && !isLoopback(config.adminHost)) {
    throw new ConfigError(
      `--admin-token-file is required where --admin-host (${config.adminHost}) is not loopback`,
    );
  }
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
}
