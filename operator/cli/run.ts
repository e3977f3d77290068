import { LorikeetError } from '../../server/contract/errors.ts';
import { KubeconfigError } from '../kube/credentials.ts';
import { ApiError } from '../kube/rest.ts';
import { type Command, commandHelp, findCommand, parseCommand } from './command.ts';
import { COMMANDS } from './commands.ts';
import { printCompletion } from './complete.ts';
import { CommandFailure, EXIT, type ExitCode, Misuse } from './failure.ts';
import type { Io } from './io.ts';

/** What kubectl's own completion, and that of the shells, ask with. */
export const COMPLETE = '__complete';

/** One command from its words to its exit code. */
export async function run(argv: readonly string[], io: Io): Promise<ExitCode> {
  if (argv[0] === COMPLETE) {
    await printCompletion(COMMANDS, argv.slice(1), io);
    return EXIT.done;
  }
  const { command, rest, words } = findCommand(COMMANDS, argv);
  try {
    if (command === null) return showCommands(words, argv, io);
    const invocation = parseCommand(command, rest, io);
    if (invocation === null) {
      io.out(commandHelp(command));
      return EXIT.done;
    }
    await command.run(invocation);
    return EXIT.done;
  } catch (error) {
    return fail(error, command, io);
  }
}

function showCommands(words: string[], argv: readonly string[], io: Io): ExitCode {
  const [first = 'help', second] = words;
  const group = COMMANDS.filter(({ name }) => name.startsWith(`${first} `));
  const known = first === 'help' ? COMMANDS : group;
  if (known.length === 0 || (second !== undefined && first !== 'help')) {
    throw new Misuse(
      `there is no command "${words.join(' ')}"`,
      'kubectl lora --help lists those that there are.',
    );
  }
  const isAsked = words[0] === 'help' || argv.includes('--help') || argv.includes('-h');
  if (isAsked) io.out(commandsHelp(known));
  else io.err(commandsHelp(known));
  return isAsked ? EXIT.done : EXIT.misused;
}

function commandsHelp(commands: readonly Command[]): string {
  const rows = commands.map(({ name, args, about }) => `  ${`${name} ${args}`.padEnd(28)} ${about}`);
  return [
    'LoRA adapters that Lorikeet keeps live on the pods of a cluster.',
    '',
    'Usage: kubectl lora COMMAND [flags]',
    '',
    ...rows,
    '',
    'kubectl lora COMMAND --help says more of each. Exit codes: 0 done, 1 failed or not there, 2 misused, 3 not in time.',
    '',
  ].join('\n');
}

function fail(error: unknown, command: Command | null, io: Io): ExitCode {
  const { message, todo, exit } = explained(error);
  io.err(`error: ${message}\n${todo === null ? '' : `${todo}\n`}`);
  if (error instanceof Misuse && error.todo === null && command !== null) {
    io.err(`kubectl lora ${command.name} --help says more.\n`);
  }
  return exit;
}

function explained(error: unknown): { message: string; todo: string | null; exit: ExitCode } {
  if (error instanceof CommandFailure) return error;
  if (error instanceof KubeconfigError) {
    return {
      message: error.message,
      todo: 'Name another with --kubeconfig FILE or --context NAME.',
      exit: EXIT.failed,
    };
  }
  if (error instanceof LorikeetError)
    return { message: `${error.message} (${error.code})`, todo: null, exit: EXIT.failed };
  if (error instanceof ApiError) return explainedApi(error);
  if (isMissingFile(error))
    return { message: `there is no file ${error.path}`, todo: null, exit: EXIT.failed };
  return {
    message: error instanceof Error ? (error.stack ?? error.message) : String(error),
    todo: null,
    exit: EXIT.failed,
  };
}

function explainedApi(error: ApiError): { message: string; todo: string | null; exit: ExitCode } {
  // "GET /apis/…: 403 …": people want to know what, not how.
  const said = error.message.replace(/^[A-Z]+ \S+: (\d+ )?/, '');
  if (error.status === 401)
    return {
      message: 'the API server does not take your credentials',
      todo: 'Log in anew; kubectl auth whoami tries them.',
      exit: EXIT.failed,
    };
  if (error.status === 404 && said.includes('could not find the requested resource')) {
    const todo = "Install the operator's chart, or name the right cluster with --context.";
    return { message: 'this cluster knows no LoraAdapters', todo, exit: EXIT.failed };
  }
  if (error.status === 0)
    return {
      message: `the API server does not answer: ${said}`,
      todo: 'kubectl cluster-info shows which one it is.',
      exit: EXIT.failed,
    };
  return { message: said, todo: null, exit: EXIT.failed };
}

function isMissingFile(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT' && 'path' in error;
}
