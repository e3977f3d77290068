import { constants } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { type Server, startServer } from './app.ts';
import { HELP, parseConfig } from './config.ts';
import { LorikeetError } from './contract/errors.ts';
import { ConfigError } from './contract/flags.ts';
import { createLog } from './contract/log.ts';
import { ModelError } from './model/errors.ts';
import { TextFileError } from './text/files.ts';

const EXIT_FAILED = 1;
const EXIT_MISUSED = 2;
/** For probes and metrics to see that the engine failed, before the container is started anew. */
const FAILED_MS = 5000;
/** What a shell calls the end by a signal, plus the signal's number. */
const SIGNALLED = 128;
/** npm sends on what the terminal has sent to us already. */
const SAME_SIGNAL_MS = 500;

async function main(): Promise<void> {
  const config = parseConfig(process.argv.slice(2), process.env);
  if (config === null) {
    process.stdout.write(HELP);
    return;
  }
  const log = createLog(config.logLevel);
  const die = (error: unknown, message: string) => {
    log.fatal({ err: error }, message);
    process.exit(EXIT_FAILED);
  };
  process.on('unhandledRejection', (error) => die(error, 'unhandled rejection'));
  process.on('uncaughtException', (error) => die(error, 'uncaught exception'));

  let server: Server | null = null;
  let stoppingMs: number | null = null;
  const stop = (signal: NodeJS.Signals) => {
    if (stoppingMs !== null) {
      if (performance.now() - stoppingMs > SAME_SIGNAL_MS)
        process.exit(SIGNALLED + constants.signals[signal]);
      return;
    }
    stoppingMs = performance.now();
    log.info({ signal, deadlineMs: config.shutdownTimeoutMs }, 'shutting down');
    // While the model loads nobody is served. As the first process of a container it must end all the same.
    if (server === null) process.exit(0);
    stopServer(server, config.shutdownTimeoutMs).catch((error) => die(error, 'shutdown failed'));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);

  log.info({ model: config.model }, 'opening the model');
  server = await startServer(config, log);
  process.stdout.write(`${JSON.stringify({ listening: server.listening })}\n`);
  const reason = await server.failed;
  log.fatal({ reason, exitsInMs: FAILED_MS }, 'the engine failed');
  await delay(FAILED_MS);
  process.exit(EXIT_FAILED);
}

async function stopServer(server: Server, deadlineMs: number): Promise<void> {
  await server.close(deadlineMs);
  process.exit(0);
}

function describe(error: unknown): string {
  if (error instanceof ConfigError) return `${error.message}\nRun with --help for all flags.`;
  if (error instanceof ModelError || error instanceof TextFileError || error instanceof LorikeetError)
    return error.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

main().catch((error: unknown) => {
  process.stderr.write(`${describe(error)}\n`);
  process.exit(error instanceof ConfigError ? EXIT_MISUSED : EXIT_FAILED);
});
