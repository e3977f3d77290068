import { constants } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { ConfigError } from './flags.ts';
import { createLog, type LogLevel } from './log.ts';

const EXIT_FAILED = 1;
const EXIT_MISUSED = 2;
/** For probes and metrics to see that it failed, before the container is started anew. */
const FAILED_MS = 5000;
/** What a shell calls the end by a signal, plus the signal's number. */
const SIGNALLED = 128;
/** npm sends on what the terminal has sent to us already. */
const SAME_SIGNAL_MS = 500;

/** What listens until it is told to stop. */
export interface Running {
  listening: object;
  /** Settles with the reason once it can serve nobody any more. */
  failed: Promise<string>;
  /** Takes no new requests, and lets running ones finish within the deadline. */
  close(deadlineMs: number): Promise<void>;
}

export interface Program<C> {
  help: string;
  /** Null: help is wanted. */
  parse(args: string[], environment: NodeJS.ProcessEnv): C | null;
  start(config: C, log: Logger): Promise<Running>;
  /** Whether the message of an error says all, so that its stack need not be shown. */
  isPlain(error: unknown): boolean;
}

/**
 * From the command line to the end of the process: one line on stdout where it listens, SIGTERM and SIGINT that stop it in
 * its own time, a second one at once. Exits with 0 when stopped, 1 when it failed, 2 when a flag is wrong.
 */
export function runProgram<C extends { logLevel: LogLevel; shutdownTimeoutMs: number }>(
  program: Program<C>,
): void {
  run(program).catch((error: unknown) => failToStart(error, program.isPlain(error)));
}

export type Die = (error: unknown, message: string) => never;

/** The process's log, and how it ends with a word in it; what nobody catches ends it so. */
export function openLog(level: LogLevel): { log: Logger; die: Die } {
  const log = createLog(level);
  const die: Die = (error, message) => {
    log.fatal({ err: error }, message);
    process.exit(EXIT_FAILED);
  };
  process.on('unhandledRejection', (error) => die(error, 'unhandled rejection'));
  process.on('uncaughtException', (error) => die(error, 'uncaught exception'));
  return { log, die };
}

/** Says on stderr why the program does not run; `isPlain` without the stack. */
export function failToStart(error: unknown, isPlain = false): never {
  const isMisused = error instanceof ConfigError;
  process.stderr.write(
    `${isMisused ? `${error.message}\nRun with --help for all flags.` : told(error, isPlain)}\n`,
  );
  process.exit(isMisused ? EXIT_MISUSED : EXIT_FAILED);
}

function told(error: unknown, isPlain: boolean): string {
  if (!(error instanceof Error)) return String(error);
  return isPlain ? error.message : (error.stack ?? error.message);
}

async function run<C extends { logLevel: LogLevel; shutdownTimeoutMs: number }>(
  program: Program<C>,
): Promise<void> {
  const config = program.parse(process.argv.slice(2), process.env);
  if (config === null) {
    process.stdout.write(program.help);
    return;
  }
  const { log, die } = openLog(config.logLevel);

  let running: Running | null = null;
  let stoppingMs: number | null = null;
  const stop = (signal: NodeJS.Signals) => {
    if (stoppingMs !== null) {
      if (performance.now() - stoppingMs > SAME_SIGNAL_MS)
        process.exit(SIGNALLED + constants.signals[signal]);
      return;
    }
    stoppingMs = performance.now();
    log.info({ signal, deadlineMs: config.shutdownTimeoutMs }, 'shutting down');
    // While it starts nobody is served. As the first process of a container it must end all the same.
    if (running === null) process.exit(0);
    stopRunning(running, config.shutdownTimeoutMs).catch((error) => die(error, 'shutdown failed'));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);

  running = await program.start(config, log);
  process.stdout.write(`${JSON.stringify({ listening: running.listening })}\n`);
  const reason = await running.failed;
  log.fatal({ reason, exitsInMs: FAILED_MS }, 'failed');
  await delay(FAILED_MS);
  process.exit(EXIT_FAILED);
}

async function stopRunning(running: Running, deadlineMs: number): Promise<void> {
  await running.close(deadlineMs);
  process.exit(0);
}
