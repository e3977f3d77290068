import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { FlagReader, type Flags, helpText } from '../server/contract/flags.ts';
import { LOG_LEVELS, type LogLevel } from '../server/contract/log.ts';
import { readTlsPaths, type TlsPaths } from '../server/transfer/tls-flags.ts';

export interface OperatorConfig {
  pushHost: string;
  pushPort: number;
  /** Null: trainers speak plain HTTP. */
  pushTls: TlsPaths | null;
  pushCaFile: string | null;
  pushAudience: string;
  /** Base of status.pushURL; null: none is advertised. */
  pushUrl: string | null;
  metricsHost: string;
  metricsPort: number;
  spoolDir: string;
  spoolBytes: number;
  /** See S3Options. */
  awsIdentity: 'none' | 'ambient';
  /** See AddressGuardOptions. */
  allowedEndpointCidrs: string[];
  /** From so many pods on they pass the bytes of revisions on to each other. */
  relayFrom: number;
  leaderNamespace: string;
  leaderName: string;
  identity: string;
  /** Where the other operators reach this one; null: they cannot forward pushes to it. */
  advertiseHost: string | null;
  /** Null: all namespaces. */
  watchNamespace: string | null;
  logLevel: LogLevel;
}

export const FLAGS = {
  'push-host': { value: 'ADDRESS', default: '0.0.0.0', help: 'where trainers push to' },
  'push-port': { value: 'PORT', default: '8080', help: 'its port; 0 = any free one' },
  'push-tls-cert-file': {
    value: 'FILE',
    default: null,
    help: 'certificate of the push endpoint, the chain below it; else it speaks plain HTTP',
  },
  'push-tls-key-file': { value: 'FILE', default: null, help: 'its key' },
  'push-ca-file': {
    value: 'FILE',
    default: null,
    help: "CA of the other operators' certificates, where pushes go on to the leader; else those that the system trusts",
  },
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
  'aws-identity': {
    value: ['none', 'ambient'],
    default: 'none',
    help: 'what signs reads of s3:// without Secret and endpoint',
  },
  'allow-endpoint-cidr': {
    value: 'CIDR',
    default: null,
    help: 'endpoints of sources here are let through, also loopback and link-local; may be repeated; absent: none',
  },
  'relay-from': {
    value: 'PODS',
    default: '4',
    help: 'from so many pods on they pass revisions on to each other, so that the bytes leave the operator once',
  },
  'leader-namespace': { value: 'NAME', default: 'default', help: 'namespace of the lease' },
  'leader-name': { value: 'NAME', default: 'lorikeet-operator', help: 'name of the lease' },
  identity: {
    value: 'NAME',
    default: null,
    help: 'of one process at a time: it takes the lease of an earlier one at once; absent: the host name',
  },
  'advertise-host': {
    value: 'ADDRESS',
    default: null,
    help: 'where other operators forward pushes to; absent: nowhere',
  },
  'watch-namespace': { value: 'NAME', default: null, help: 'the only namespace to look at; absent: all' },
  'log-level': { value: LOG_LEVELS, default: 'info', help: 'logs go to stderr' },
} as const satisfies Flags;

export const HELP = helpText('node operator/main.ts [flags]', FLAGS, [
  'The API server is that of KUBECONFIG, else of the cluster that the process runs in.',
]);

/** Null: help is wanted. */
export function parseConfig(args: string[], environment: NodeJS.ProcessEnv): OperatorConfig | null {
  const read = new FlagReader(FLAGS, args, environment);
  if (read.wantsHelp) return null;
  return {
    pushHost: read.text('push-host'),
    pushPort: read.port('push-port'),
    pushTls: readTlsPaths({
      'push-tls-cert-file': read.optional('push-tls-cert-file'),
      'push-tls-key-file': read.optional('push-tls-key-file'),
    }),
    pushCaFile: read.optional('push-ca-file'),
    pushAudience: read.text('push-audience'),
    pushUrl: read.url('push-url'),
    metricsHost: read.text('metrics-host'),
    metricsPort: read.port('metrics-port'),
    spoolDir: read.optional('spool-dir') ?? join(tmpdir(), `lorikeet-spool-${process.pid}`),
    spoolBytes: read.bytes('spool-bytes'),
    awsIdentity: read.oneOf('aws-identity'),
    allowedEndpointCidrs: read.cidrs('allow-endpoint-cidr'),
    relayFrom: read.integer('relay-from', 2, 1_000_000),
    leaderNamespace: read.text('leader-namespace'),
    leaderName: read.text('leader-name'),
    identity: read.optional('identity') ?? hostname(),
    advertiseHost: read.optional('advertise-host'),
    watchNamespace: read.optional('watch-namespace'),
    logLevel: read.oneOf('log-level'),
  };
}
