import { ConfigError, FlagReader, type Flags, helpText } from '../contract/flags.ts';

export interface SuiteConfig {
  url: string;
  serving: string | null;
  tokenFile: string | null;
  caFile: string | null;
  certFile: string | null;
  keyFile: string | null;
  /** Part of the names of the checks that are to run. */
  only: string;
  output: 'text' | 'json' | 'junit';
  isForced: boolean;
}

export const FLAGS = {
  'token-file': {
    value: 'FILE',
    default: null,
    help: 'bearer token of the admin API; else calls go without one',
  },
  serving: { value: 'URL', default: null, help: "the same pod's serving API; else its checks are skipped" },
  ca: { value: 'FILE', default: null, help: 'CA of its certificates; else those that the system trusts' },
  cert: { value: 'FILE', default: null, help: 'certificate to show where the pod asks for one' },
  key: { value: 'FILE', default: null, help: 'its key' },
  only: { value: 'TEXT', default: null, help: 'checks whose names have this in them; else all' },
  output: { value: ['text', 'json', 'junit'], default: 'text', help: 'what is written to stdout; also -o' },
  force: { value: '', default: null, help: 'take away first what an earlier run left behind' },
} as const satisfies Flags;

export const HELP = helpText('npm run conformance -- URL [flags]', FLAGS, [
  'URL is the admin API of a pod, as http://127.0.0.1:8001.',
  'Exit codes: 0 it conforms, 1 a MUST is not met, 2 the suite could not run.',
]);

/** Null: help is wanted. */
export function parseConfig(args: string[], environment: NodeJS.ProcessEnv): SuiteConfig | null {
  const long = args.map((arg) => (arg === '-o' ? '--output' : arg));
  const isFirst = long[0]?.startsWith('-') === false;
  const flags = new FlagReader(FLAGS, isFirst ? long.slice(1) : long, environment);
  if (flags.wantsHelp) return null;
  const [certFile, keyFile] = [flags.optional('cert'), flags.optional('key')];
  if ((certFile === null) !== (keyFile === null)) throw new ConfigError('--cert and --key go together');
  return {
    url: requireUrl(isFirst ? long[0] : undefined),
    serving: flags.url('serving'),
    tokenFile: flags.optional('token-file'),
    caFile: flags.optional('ca'),
    certFile,
    keyFile,
    only: flags.optional('only') ?? '',
    output: flags.oneOf('output'),
    isForced: flags.isOn('force'),
  };
}

function requireUrl(text: string | undefined): string {
  const url = URL.parse(text ?? '');
  if (text !== undefined && url !== null && /^https?:$/.test(url.protocol)) return text;
  throw new ConfigError(`Expected the URL of an admin API before all flags but received ${text ?? 'none'}`);
}
