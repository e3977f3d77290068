import { type CliFlags, type Command, FlagValues, findCommand } from './command.ts';
import type { Io } from './io.ts';
import { listAdapters } from './objects.ts';
import { withCluster } from './session.ts';

/** Cobra's directives: no more files than these, and files where nothing is known. */
const NO_FILES = ':4';
const FILES = ':0';

interface Candidate {
  value: string;
  about: string;
}

/** What may stand in place of the last word; null: a file. */
export interface Completion {
  candidates: Candidate[];
  /** Whether names of adapters may stand there too, which the cluster knows. */
  adapters: { command: Command; rest: string[] } | null;
  files: boolean;
}

/** Pure: what the words so far leave open. */
export function complete(commands: readonly Command[], words: readonly string[]): Completion {
  const before = words.slice(0, -1);
  const last = words.at(-1) ?? '';
  const { command, rest, words: named } = findCommand(commands, before);
  if (command === null) {
    const nexts = commands
      .filter(({ name }) => name.split(' ').slice(0, named.length).join(' ') === named.join(' '))
      .map(({ name, about }) => ({ value: name.split(' ')[named.length] ?? '', about }));
    return only(matching([...new Map(nexts.map((next) => [next.value, next])).values()], last));
  }
  const open = valueFlag(command.flags, before.at(-1) ?? '');
  if (open !== null) {
    if (typeof open === 'string') return { candidates: [], adapters: null, files: /FILE|DIR/.test(open) };
    return only(
      matching(
        open.map((value) => ({ value, about: '' })),
        last,
      ),
    );
  }
  if (last.startsWith('-')) {
    const flags = Object.entries(command.flags).map(([name, { help }]) => ({
      value: `--${name}`,
      about: help,
    }));
    return only(matching(flags, last));
  }
  return forArgument(command, { rest, last });
}

function forArgument(command: Command, { rest, last }: { rest: string[]; last: string }): Completion {
  const position = positionals(command.flags, rest).length;
  const arg = command.args.replaceAll(/[[\]]/g, '').split(' ')[position] ?? '';
  if (arg === 'NAME') return { candidates: [], adapters: { command, rest }, files: false };
  if (/DIR|FILE/.test(arg)) return { candidates: [], adapters: null, files: true };
  const choices = /^[a-z|]+$/.test(arg) ? arg.split('|') : [];
  return only(
    matching(
      choices.map((value) => ({ value, about: '' })),
      last,
    ),
  );
}

function only(candidates: Candidate[]): Completion {
  return { candidates, adapters: null, files: false };
}

function matching(candidates: Candidate[], prefix: string): Candidate[] {
  return candidates.filter(({ value }) => value !== '' && value.startsWith(prefix));
}

/** What the value of the flag may be, where the word is a flag that wants one; null: it is not. */
function valueFlag(flags: CliFlags, word: string): string | readonly string[] | null {
  const flag = Object.entries(flags).find(
    ([name, { short }]) => word === `--${name}` || (short !== undefined && word === `-${short}`),
  )?.[1];
  return flag === undefined || flag.value === '' ? null : flag.value;
}

function positionals(flags: CliFlags, words: readonly string[]): string[] {
  return words.filter((word, at) => !word.startsWith('-') && valueFlag(flags, words[at - 1] ?? '') === null);
}

/** As kubectl asks a plugin: see the completion command. A cluster that does not answer completes nothing. */
export async function printCompletion(commands: readonly Command[], words: string[], io: Io): Promise<void> {
  const { candidates, adapters, files } = complete(commands, words);
  const names = adapters === null ? [] : await adapterNames(adapters, io).catch(() => []);
  const found = [...candidates, ...matching(names, words.at(-1) ?? '')];
  const lines = found.map(({ value, about }) => (about === '' ? value : `${value}\t${about}`));
  io.out([...lines, files ? FILES : NO_FILES, ''].join('\n'));
}

async function adapterNames(
  { command, rest }: { command: Command; rest: string[] },
  io: Io,
): Promise<Candidate[]> {
  const given: Record<string, string> = {};
  for (const [at, word] of rest.entries()) {
    const name = {
      '-n': 'namespace',
      '--namespace': 'namespace',
      '--context': 'context',
      '--kubeconfig': 'kubeconfig',
    }[word];
    const value = rest[at + 1];
    if (name !== undefined && value !== undefined) given[name] = value;
  }
  const flags = new FlagValues(command.flags, given, io.env);
  return await withCluster({ flags }, async (session) =>
    (await listAdapters(session)).map(({ metadata, spec }) => ({
      value: metadata.name,
      about: `on ${spec.poolRef.name}`,
    })),
  );
}
