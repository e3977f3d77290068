import { ConfigError, FlagReader, type Flags, helpText } from '../contract/flags.ts';
import { LOG_LEVELS, type LogLevel } from '../contract/log.ts';
import { isLoopback } from '../transfer/loopback.ts';
import { readTlsPaths } from '../transfer/tls-flags.ts';
import { type PushPlace, readPlace } from './target.ts';

export interface BridgeConfig {
  push: PushPlace;
  pushTokenFile: string;
  /** Null: --push is trusted where the system trusts it. */
  pushCaFile: string | null;
  /** Null: it shows no certificate. */
  pushPair: { cert: string; key: string } | null;
  /** Null: whom the URLs of --push name. */
  pushServerName: string | null;
  /** URLs of pods, or the name and port of a headless Service. */
  serving: string[] | string;
  loraRoot: string;
  host: string;
  port: number;
  tokenFile: string | null;
  keep: number;
  syncTimeoutMs: number;
  requestTimeoutMs: number;
  maxInFlight: number;
  shutdownTimeoutMs: number;
  logLevel: LogLevel;
}

export const FLAGS = {
  push: {
    value: 'URL',
    default: null,
    help: "where revisions go: an operator's .../v1/namespaces/NAMESPACE or status.pushURL, or each pod's admin API (required)",
  },
  'push-token-file': { value: 'FILE', default: null, help: 'bearer token for --push (required)' },
  'push-ca-file': {
    value: 'FILE',
    default: null,
    help: 'CA of the certificates of --push; else those that the system trusts',
  },
  'push-cert-file': {
    value: 'FILE',
    default: null,
    help: 'certificate to show --push where it asks for one, the chain below it',
  },
  'push-key-file': { value: 'FILE', default: null, help: 'its key' },
  'push-server-name': {
    value: 'NAME',
    default: null,
    help: 'DNS name that the certificates of --push are for; else what its URLs name',
  },
  serving: { value: 'URL', default: null, help: "pods' serving APIs; this or --serving-dns" },
  'serving-dns': {
    value: 'NAME:PORT',
    default: null,
    help: 'headless Service whose addresses are the pods, looked up every 5 s',
  },
  'lora-root': { value: 'DIR', default: null, help: 'folder that lora_path must be below (required)' },
  host: { value: 'ADDRESS', default: '127.0.0.1', help: 'where the bridge listens' },
  port: { value: 'PORT', default: '8000', help: 'its port; 0 = any free one' },
  'token-file': {
    value: 'FILE',
    default: null,
    help: 'bearer token of who may load; without one, who is on this machine (loopback only)',
  },
  keep: {
    value: 'N',
    default: '6',
    help: 'versions of an adapter that can be asked for, the newest among them',
  },
  'sync-timeout': {
    value: 'SECONDS',
    default: '120',
    help: 'how long a load may take until every pod has it; then it is answered 504',
  },
  'request-timeout': {
    value: 'SECONDS',
    default: '600',
    help: 'how long a pod may say nothing of an answer',
  },
  'max-in-flight': { value: 'N', default: '4096', help: 'requests under way; one more is answered 503' },
  'shutdown-timeout': {
    value: 'SECONDS',
    default: '25',
    help: 'how long running requests may take after SIGTERM',
  },
  'log-level': { value: LOG_LEVELS, default: 'info', help: 'logs go to stderr' },
} as const satisfies Flags;

export const HELP = helpText(
  'node server/bridge/main.ts --push URL --serving URL --lora-root DIR [flags]',
  FLAGS,
  ['--push and --serving may be given several times, or with commas between.'],
);

/** Null: help is wanted. */
export function parseConfig(args: string[], environment: NodeJS.ProcessEnv): BridgeConfig | null {
  const read = new FlagReader(FLAGS, args, environment);
  if (read.wantsHelp) return null;
  const push = urlsOf('push', read.list('push'));
  if (push.length === 0) throw new ConfigError('--push is required (or LORIKEET_PUSH)');
  const config: BridgeConfig = {
    push: readPlace(push),
    pushTokenFile: read.text('push-token-file'),
    pushCaFile: read.optional('push-ca-file'),
    pushPair: readTlsPaths({
      'push-cert-file': read.optional('push-cert-file'),
      'push-key-file': read.optional('push-key-file'),
    }),
    pushServerName: read.optional('push-server-name'),
    serving: servingOf(urlsOf('serving', read.list('serving')), read.optional('serving-dns')),
    loraRoot: read.text('lora-root'),
    host: read.text('host'),
    port: read.port('port'),
    tokenFile: read.optional('token-file'),
    keep: read.integer('keep', 1, 17),
    syncTimeoutMs: read.integer('sync-timeout', 1, 3600) * 1000,
    requestTimeoutMs: read.integer('request-timeout', 1, 86_400) * 1000,
    maxInFlight: read.integer('max-in-flight', 1, 1 << 20),
    shutdownTimeoutMs: read.integer('shutdown-timeout', 0, 3600) * 1000,
    logLevel: read.oneOf('log-level'),
  };
  const [plain] = push.filter((url) => url.startsWith('http:'));
  if (config.pushPair !== null && plain !== undefined)
    throw new ConfigError(`--push-cert-file needs https URLs for --push, not ${plain}`);
  if (config.tokenFile === null && !isLoopback(config.host))
    throw new ConfigError(`--token-file is required where --host (${config.host}) is not loopback`);
  return config;
}

/** Without a slash at the end. */
function urlsOf(flag: string, values: string[]): string[] {
  return values
    .flatMap((value) => value.split(','))
    .map((text) => {
      const url = URL.parse(text);
      if (url !== null && /^https?:$/.test(url.protocol) && url.search === '' && url.hash === '')
        return text.replace(/\/+$/, '');
      throw new ConfigError(`Expected http or https URLs for --${flag} but received ${text}`);
    });
}

function servingOf(urls: string[], dns: string | null): string[] | string {
  if ((urls.length === 0) === (dns === null))
    throw new ConfigError('Expected either --serving or --serving-dns');
  if (dns === null) return urls;
  if (/^[A-Za-z0-9._-]+:\d{1,5}$/.test(dns)) return dns;
  throw new ConfigError(
    `Expected a name and a port as parrot-pods.team-a:8000 for --serving-dns but received ${dns}`,
  );
}
