import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { quantityBytes } from './api/quantity.ts';
import { LOG_LEVELS, type LogLevel } from './telemetry/log.ts';

export interface OperatorConfig {
  pushHost: string;
  pushPort: number;
  pushAudience: string;
  /** Base of status.pushURL; null: none is advertised. */
  pushUrl: string | null;
  metricsHost: string;
  metricsPort: number;
  spoolDir: string;
  spoolBytes: number;
  leaderNamespace: string;
  leaderName: string;
  identity: string;
  /** Where the other operators reach this one; null: they cannot forward pushes to it. */
  advertiseHost: string | null;
  /** Null: all namespaces. */
  watchNamespace: string | null;
  logLevel: LogLevel;
}

/** A flag or environment variable that cannot be used; the process ends with status 2. */
export class ConfigError extends Error {}

interface Flag {
  /** Shown in --help after the name. */
  value: string;
  /** Null: the flag may be absent, and help says what that means. */
  default: string | null;
  help: string;
}

const FLAGS = {
  'push-host': { value: 'ADDRESS', default: '0.0.0.0', help: 'where trainers push to' },
  'push-port': { value: 'PORT', default: '8080', help: 'its port; 0 = any free one' },
  'push-audience': {
    value: 'NAME',
    default: 'lorikeet-push',
    help: 'audience that the tokens of trainers must have',
  },
  'push-url': { value: 'URL', default: null, help: 'base of status.pushURL; absent: not advertised' },
  'metrics-host': {
    value: 'ADDRESS',
    default: '0.0.0.0',
    help: 'where /healthz, /readyz and /metrics listen',
  },
  'metrics-port': { value: 'PORT', default: '9090', help: 'its port; 0 = any free one' },
  'spool-dir': {
    value: 'DIR',
    default: null,
    help: 'where revisions are kept for new pods; absent: a temporary one',
  },
  'spool-bytes': { value: 'BYTES', default: '2Gi', help: 'how much of them' },
  'leader-namespace': { value: 'NAME', default: 'default', help: 'namespace of the lease' },
  'leader-name': { value: 'NAME', default: 'lorikeet-operator', help: 'name of the lease' },
  identity: { value: 'NAME', default: null, help: 'different for each process; absent: the host name' },
  'advertise-host': {
    value: 'ADDRESS',
    default: null,
    help: 'where other operators forward pushes to; absent: nowhere',
  },
  'watch-namespace': { value: 'NAME', default: null, help: 'the only namespace to look at; absent: all' },
  'log-level': { value: LOG_LEVELS.join('|'), default: 'info', help: 'logs go to stderr' },
} as const satisfies Record<string, Flag>;

type FlagName = keyof typeof FLAGS;

export function environmentName(flag: string): string {
  return `LORIKEET_${flag.toUpperCase().replaceAll('-', '_')}`;
}

export function helpText(): string {
  const rows = Object.entries<Flag>(FLAGS).map(([name, flag]) => {
    const fallback = flag.default === null ? '' : ` [${flag.default}]`;
    return `  ${`--${name} ${flag.value}`.padEnd(32)} ${flag.help}${fallback}`;
  });
  return [
    'Usage: node operator/main.ts [flags]',
    '',
    ...rows,
    `  ${'--help'.padEnd(32)} this text`,
    '',
    'The API server is that of KUBECONFIG, else of the cluster that the process runs in.',
    'Each flag is also an environment variable: --push-port is LORIKEET_PUSH_PORT; a flag wins over its variable.',
    'BYTES may end in Ki, Mi, Gi, Ti, k, M, G or T.',
    '',
  ].join('\n');
}

/** Null: help is wanted. */
export function parseConfig(args: string[], environment: NodeJS.ProcessEnv): OperatorConfig | null {
  const given = parseFlags(args);
  if (given.help === true) return null;
  const read = (name: FlagName): string | null => {
    const value = given[name] ?? environment[environmentName(name)];
    return typeof value === 'string' && value !== '' ? value : FLAGS[name].default;
  };
  const text = (name: FlagName): string => read(name) ?? '';
  return {
    pushHost: text('push-host'),
    pushPort: port('push-port', text('push-port')),
    pushAudience: text('push-audience'),
    pushUrl: url('push-url', read('push-url')),
    metricsHost: text('metrics-host'),
    metricsPort: port('metrics-port', text('metrics-port')),
    spoolDir: read('spool-dir') ?? join(tmpdir(), `lorikeet-spool-${process.pid}`),
    spoolBytes: bytes('spool-bytes', text('spool-bytes')),
    leaderNamespace: text('leader-namespace'),
    leaderName: text('leader-name'),
    identity: read('identity') ?? hostname(),
    advertiseHost: read('advertise-host'),
    watchNamespace: read('watch-namespace'),
    logLevel: logLevel(text('log-level')),
  };
}

function parseFlags(args: string[]): Record<string, string | boolean | undefined> {
  const strings = Object.keys(FLAGS).map((name) => [name, { type: 'string' as const }]);
  const options = { ...Object.fromEntries(strings), help: { type: 'boolean' as const } };
  try {
    return parseArgs({ args, options, allowPositionals: false, strict: true }).values as Record<
      string,
      string | boolean
    >;
  } catch (error) {
    throw new ConfigError(`${error instanceof Error ? error.message : String(error)} See --help.`);
  }
}

function port(name: FlagName, value: string): number {
  const number = Number(value);
  if (/^\d+$/.test(value) && number <= 65_535) return number;
  throw new ConfigError(`Expected a port between 0 and 65535 for --${name} but received ${value}.`);
}

function bytes(name: FlagName, value: string): number {
  try {
    return quantityBytes(value);
  } catch {
    throw new ConfigError(`Expected bytes such as 512Mi for --${name} but received ${value}.`);
  }
}

function url(name: FlagName, value: string | null): string | null {
  if (value === null) return null;
  const parsed = URL.canParse(value) ? new URL(value) : null;
  if (parsed !== null && /^https?:$/.test(parsed.protocol)) return value;
  throw new ConfigError(`Expected an http or https URL for --${name} but received ${value}.`);
}

function logLevel(value: string): LogLevel {
  const level = LOG_LEVELS.find((known) => known === value);
  if (level) return level;
  throw new ConfigError(`Expected ${LOG_LEVELS.join(', ')} for --log-level but received ${value}.`);
}
