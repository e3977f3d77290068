import { ConfigError } from '../server/contract/flags.ts';
import { createLog } from '../server/contract/log.ts';
import { type Operator, startOperator } from './app.ts';
import { HELP, parseConfig } from './config.ts';

const EXIT_FAILED = 1;
const EXIT_MISUSED = 2;
/** Less than the chart's terminationGracePeriodSeconds, and time for each step of `close`. */
const STOP_MS = 40_000;

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

  let operator: Operator | null = null;
  let stopping = false;
  const stop = (signal: string) => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, 'stopping');
    // Before it acts there is nothing to give back. As the first process of a container it must end all the same.
    if (operator === null) process.exit(0);
    stopOperator(operator, die).catch((error) => die(error, 'the operator could not stop cleanly'));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);

  operator = await startOperator(config, log, die);
  process.stdout.write(`${JSON.stringify({ listening: operator.listening })}\n`);
}

async function stopOperator(
  operator: Operator,
  die: (error: unknown, message: string) => void,
): Promise<void> {
  setTimeout(() => die(new Error(`Expected to stop within ${STOP_MS} ms`), 'stopped by force'), STOP_MS);
  await operator.close();
  process.exit(0);
}

function describe(error: unknown): string {
  if (error instanceof ConfigError) return `${error.message}\nRun with --help for all flags.`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

main().catch((error: unknown) => {
  process.stderr.write(`${describe(error)}\n`);
  process.exit(error instanceof ConfigError ? EXIT_MISUSED : EXIT_FAILED);
});
