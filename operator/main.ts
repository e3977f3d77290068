import { type Die, failToStart, openLog } from '../server/contract/program.ts';
import { type Operator, startOperator } from './app.ts';
import { HELP, parseConfig } from './config.ts';

/** Less than the chart's terminationGracePeriodSeconds, and time for each step of `close`. */
const STOP_MS = 40_000;

async function main(): Promise<void> {
  const config = parseConfig(process.argv.slice(2), process.env);
  if (config === null) {
    process.stdout.write(HELP);
    return;
  }
  const { log, die } = openLog(config.logLevel);

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

async function stopOperator(operator: Operator, die: Die): Promise<void> {
  setTimeout(() => die(new Error(`Expected to stop within ${STOP_MS} ms`), 'stopped by force'), STOP_MS);
  await operator.close();
  process.exit(0);
}

main().catch((error: unknown) => failToStart(error));
