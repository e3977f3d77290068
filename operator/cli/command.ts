import { parseArgs } from 'node:util';
import { environmentName, type Flag, synopsis } from '../../server/contract/flags.ts';
import { Misuse } from './failure.ts';
import type { Io } from './io.ts';
import { durationMs } from './words.ts';

export interface CliFlag extends Flag {
  short?: string;
}
export type CliFlags = Record<string, CliFlag>;

export interface Invocation {
  io: Io;
  /** Of the command's flags; what is not given is not there. */
  flags: FlagValues;
  args: string[];
}

export interface Command {
  /** `rollout status` */
  name: string;
  /** What follows the name: `NAME DIR|FILE`. */
  args: string;
  /** How many there may be. */
  arity: [least: number, most: number];
  about: string;
  /** Paragraphs and examples of --help. */
  detail: string;
  flags: CliFlags;
  run(invocation: Invocation): Promise<void>;
}

const switchFlag = { value: '', default: null };

export const KUBE_FLAGS: CliFlags = {
  namespace: { short: 'n', value: 'NAME', default: null, help: "the namespace; absent: the context's" },
  context: { value: 'NAME', default: null, help: 'of the kubeconfig; absent: the current one' },
  kubeconfig: { value: 'FILE', default: null, help: 'absent: KUBECONFIG, ~/.kube/config' },
};

export const ALL_NAMESPACES: CliFlags = {
  'all-namespaces': { ...switchFlag, short: 'A', help: 'of all namespaces' },
};

export const OUTPUT: CliFlags = {
  output: {
    short: 'o',
    value: ['table', 'wide', 'json', 'yaml'],
    default: 'table',
    help: 'how it is printed',
  },
};

export const PLAIN_OUTPUT: CliFlags = {
  output: { short: 'o', value: ['table', 'json', 'yaml'], default: 'table', help: 'how it is printed' },
};

/** Where the push endpoint is, and as whom it is called. */
export const ENDPOINT_FLAGS: CliFlags = {
  account: {
    value: '[NAMESPACE/]NAME',
    default: null,
    help: 'the ServiceAccount that calls the operator; absent: the one that a RoleBinding lets push',
  },
  'token-file': { value: 'FILE', default: null, help: 'a token to show instead, as of a mounted volume' },
  audience: { value: 'NAME', default: 'lorikeet-push', help: 'whom the token is for' },
  'push-url': { value: 'URL', default: null, help: 'of the push endpoint; absent: through a port-forward' },
  'push-ca-file': {
    value: 'FILE',
    default: null,
    help: 'who signs its certificate; absent: the system knows',
  },
  'operator-namespace': {
    value: 'NAME',
    default: null,
    help: 'where the operator runs; absent: it is looked for',
  },
};

export function toggle(help: string): CliFlag {
  return { ...switchFlag, help };
}

/** Flags as they were given, else their environment variable, else their default. */
export class FlagValues {
  readonly #flags: CliFlags;
  readonly #given: Record<string, string | boolean | undefined>;
  readonly #env: NodeJS.ProcessEnv;

  constructor(flags: CliFlags, given: Record<string, string | boolean | undefined>, env: NodeJS.ProcessEnv) {
    this.#flags = flags;
    this.#given = given;
    this.#env = env;
  }

  /** Before anything is done: a value that cannot be read is misuse. */
  check(): this {
    for (const [name, { value }] of Object.entries(this.#flags)) {
      if (this.optional(name) === null) continue;
      if (value === 'TIME') this.durationMs(name);
      if (value === 'N') this.integer(name);
    }
    return this;
  }

  isOn(name: string): boolean {
    return this.#given[name] === true;
  }

  optional(name: string): string | null {
    const flag = this.#flags[name];
    if (flag === undefined) return null;
    const given = this.#given[name];
    const fromEnv = Object.hasOwn(ENDPOINT_FLAGS, name) ? this.#env[environmentName(name)] : undefined;
    const value = typeof given === 'string' ? given : fromEnv || flag.default;
    if (value === '') throw new Misuse(`--${name} needs a value`);
    if (value !== null && typeof flag.value !== 'string' && !flag.value.includes(value)) {
      throw new Misuse(`--${name} is one of ${flag.value.join(', ')}, not ${value}`);
    }
    return value;
  }

  text(name: string): string {
    const value = this.optional(name);
    if (value === null) throw new Misuse(`--${name} is needed`);
    return value;
  }

  integer(name: string): number | null {
    const value = this.optional(name);
    if (value === null) return null;
    if (/^\d{1,15}$/.test(value)) return Number(value);
    throw new Misuse(`--${name} is a whole number, not ${value}`);
  }

  durationMs(name: string): number {
    const value = this.text(name);
    const ms = durationMs(value);
    if (ms !== null) return ms;
    throw new Misuse(`--${name} is a time such as 30s or 5m, not ${value}`);
  }
}

/** What parseArgs is told of the flags. */
function optionsOf(flags: CliFlags) {
  return Object.fromEntries(
    Object.entries({ ...flags, help: { ...switchFlag, short: 'h', help: '' } }).map(([name, flag]) => {
      const type = flag.value === '' ? ('boolean' as const) : ('string' as const);
      return [name, { type, ...(flag.short !== undefined && { short: flag.short }) }];
    }),
  );
}

export interface Found {
  command: Command | null;
  /** Without the words of the command's name. */
  rest: string[];
  /** Words that name no command, or only the first of two. */
  words: string[];
}

/** The command that the first words name; flags may stand anywhere between them. */
export function findCommand(commands: readonly Command[], argv: readonly string[]): Found {
  const all = Object.assign({}, ...commands.map(({ flags }) => flags)) as CliFlags;
  const { tokens } = parseArgs({
    args: [...argv],
    options: optionsOf(all),
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const words = tokens.flatMap((token) =>
    token.kind === 'positional' ? [{ value: token.value, index: token.index }] : [],
  );
  for (const length of [2, 1]) {
    const name = words
      .slice(0, length)
      .map(({ value }) => value)
      .join(' ');
    const command = commands.find((candidate) => candidate.name === name);
    if (command === undefined) continue;
    const used = new Set(words.slice(0, length).map(({ index }) => index));
    return { command, rest: argv.filter((_, index) => !used.has(index)), words: [] };
  }
  return { command: null, rest: [...argv], words: words.map(({ value }) => value) };
}

/** Null: help is wanted. */
export function parseCommand(command: Command, argv: string[], io: Io): Invocation | null {
  const { values, positionals } = readArgs(command, argv);
  if (values.help === true) return null;
  const [least, most] = command.arity;
  if (positionals.length < least || positionals.length > most) {
    throw new Misuse(
      `${command.name} takes ${command.args || 'no arguments'}, not ${countText(positionals)}`,
    );
  }
  return { io, flags: new FlagValues(command.flags, values, io.env).check(), args: positionals };
}

function countText(args: string[]): string {
  return args.length === 0 ? 'nothing' : args.map((arg) => `"${arg}"`).join(' ');
}

function readArgs({ flags }: Command, args: string[]) {
  try {
    return parseArgs({ args, options: optionsOf(flags), strict: true, allowPositionals: true });
  } catch (error) {
    throw new Misuse((error as Error).message.replace(/\. To specify.*/s, ''));
  }
}

export function commandHelp({ name, args, about, detail, flags }: Command): string {
  const rows = Object.entries(flags).map(([flag, spec]) => {
    const short = spec.short === undefined ? '    ' : `-${spec.short}, `;
    const fallback = spec.default === null ? '' : ` [${spec.default}]`;
    return `  ${`${short}${synopsis(flag, spec)}`.padEnd(40)} ${spec.help}${fallback}`;
  });
  const usage = `kubectl lora ${name} ${args}`.trimEnd();
  return [
    about,
    '',
    detail.trim(),
    '',
    `Usage: ${usage} [flags]`,
    '',
    ...rows,
    `  ${'-h, --help'.padEnd(40)} this text`,
    '',
  ]
    .join('\n')
    .replace(/\n{3,}/g, '\n\n');
}
