import { isIP } from 'node:net';
import { parseArgs } from 'node:util';
import { sizeBytes } from './size.ts';

export interface Flag {
  /** What --help shows after the name; a list holds the only values that there are; empty: a switch, which has none. */
  value: string | readonly string[];
  /** Null: there is none, and help says what the flag's absence means. */
  default: string | null;
  help: string;
}

export type Flags = Record<string, Flag>;

type NameOf<F> = keyof F & string;
type ChoiceNameOf<F extends Record<keyof F, Flag>> = {
  [N in NameOf<F>]: F[N]['value'] extends readonly string[] ? N : never;
}[NameOf<F>];

/** A flag or environment variable that cannot be used; the process ends with status 2. */
export class ConfigError extends Error {}

export function environmentName(flag: string): string {
  return `LORIKEET_${flag.toUpperCase().replaceAll('-', '_')}`;
}

export function synopsis(name: string, { value }: Flag): string {
  return `--${name} ${typeof value === 'string' ? value : value.join('|')}`.trimEnd();
}

export function helpText(usage: string, flags: Flags, notes: string[]): string {
  const rows = Object.entries(flags).map(([name, flag]) => {
    const fallback = flag.default === null ? '' : ` [${flag.default}]`;
    return `  ${synopsis(name, flag).padEnd(38)} ${flag.help}${fallback}`;
  });
  return [
    `Usage: ${usage}`,
    '',
    ...rows,
    `  ${'--help'.padEnd(38)} this text`,
    '',
    'Each flag is also an environment variable: --some-flag is LORIKEET_SOME_FLAG; a flag wins over its variable.',
    'BYTES may end in Ki, Mi, Gi, Ti, k, M, G or T.',
    ...notes,
    '',
  ].join('\n');
}

/** Reads a program's flags by name, as what the program wants them to be; throws ConfigError where they are not. */
export class FlagReader<F extends Record<keyof F, Flag>> {
  readonly wantsHelp: boolean;
  readonly #flags: F;
  readonly #given: Record<string, string[] | undefined>;
  readonly #environment: NodeJS.ProcessEnv;

  constructor(flags: F, args: string[], environment: NodeJS.ProcessEnv) {
    const { help, ...given } = parseFlags(flags, args);
    this.wantsHelp = help === true;
    this.#flags = flags;
    this.#given = given as Record<string, string[]>;
    this.#environment = environment;
  }

  /** A flag that is read as a list may be given several times; in the variable, commas are between. */
  list(name: NameOf<F>): string[] {
    return this.#given[name] ?? (this.#fromEnvironment(name) ?? '').split(',').filter((item) => item !== '');
  }

  optional(name: NameOf<F>): string | null {
    const given = this.#given[name] ?? [];
    if (given.length > 1) throw new ConfigError(`--${name} was given ${given.length} times; once is allowed`);
    const value = given[0] ?? this.#fromEnvironment(name) ?? this.#flags[name].default;
    if (value === '') throw new ConfigError(`Expected a value for --${name} but received an empty one`);
    return value;
  }

  text(name: NameOf<F>): string {
    const value = this.optional(name);
    if (value === null) throw new ConfigError(`--${name} is required (or ${environmentName(name)})`);
    return value;
  }

  /** Whether a switch is given; its variable is 1 or 0. */
  isOn(name: NameOf<F>): boolean {
    if (this.#given[name] !== undefined) return true;
    const value = this.#fromEnvironment(name) ?? '0';
    if (value === '0' || value === '1') return value === '1';
    throw new ConfigError(`Expected 1 or 0 for ${environmentName(name)} but received ${value}`);
  }

  integer(name: NameOf<F>, min: number, max: number): number {
    const text = this.text(name);
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= min && value <= max) return value;
    throw new ConfigError(`Expected a whole number from ${min} to ${max} for --${name} but received ${text}`);
  }

  /** 0: any free one. */
  port(name: NameOf<F>): number {
    return this.integer(name, 0, 65_535);
  }

  bytes(name: NameOf<F>): number {
    const text = this.text(name);
    const bytes = sizeBytes(text);
    if (bytes !== null) return bytes;
    throw new ConfigError(`Expected a size as 512Mi or 1000000 for --${name} but received ${text}`);
  }

  oneOf<N extends ChoiceNameOf<F>>(name: N): Extract<F[N]['value'], readonly string[]>[number] {
    const text = this.text(name);
    const choices = this.#flags[name].value as Extract<F[N]['value'], readonly string[]>;
    const choice = choices.find((candidate) => candidate === text);
    if (choice !== undefined) return choice;
    throw new ConfigError(`Expected one of ${choices.join(', ')} for --${name} but received ${text}`);
  }

  url(name: NameOf<F>): string | null {
    const text = this.optional(name);
    if (text === null || /^https?:$/.test(URL.parse(text)?.protocol ?? '')) return text;
    throw new ConfigError(`Expected an http or https URL for --${name} but received ${text}`);
  }

  /** A list of networks. */
  cidrs(name: NameOf<F>): string[] {
    const wrong = this.list(name).find((text) => !isCidr(text));
    if (wrong === undefined) return this.list(name);
    throw new ConfigError(`Expected a network as 10.0.0.0/8 for --${name} but received ${wrong}`);
  }

  #fromEnvironment(name: NameOf<F>): string | null {
    const value = this.#environment[environmentName(name)];
    // Kubernetes sets LORIKEET_PORT=tcp://… in every pod beside a Service named "lorikeet".
    if (value === undefined || value === '' || value.startsWith('tcp://')) return null;
    return value;
  }
}

/** Lets every flag be repeated, so that the reader can refuse it instead of going by the last one. */
function parseFlags(flags: Record<string, Flag>, args: string[]): Record<string, unknown> {
  const known = Object.entries(flags).map(([name, { value }]) => {
    return [name, { type: value === '' ? 'boolean' : 'string', multiple: true }] as const;
  });
  const options = { ...Object.fromEntries(known), help: { type: 'boolean' } } as const;
  try {
    return parseArgs({ args, options, strict: true, allowPositionals: false }).values;
  } catch (cause) {
    throw new ConfigError((cause as Error).message, { cause });
  }
}

function isCidr(text: string): boolean {
  const [, address = '', prefix] = /^([0-9a-f:.]+)\/(\d{1,3})$/i.exec(text) ?? [];
  const bitsMax = { 0: -1, 4: 32, 6: 128 }[isIP(address)] ?? -1;
  return Number(prefix) <= bitsMax;
}
