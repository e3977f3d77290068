import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { ConfigError } from '../contract/flags.ts';
import type { Check } from './check.ts';
import { CHECKS } from './checks.ts';
import type { Tls } from './client.ts';
import { HELP, parseConfig, type SuiteConfig } from './config.ts';
import { jsonOf, junitOf, lineOf, summaryLine, summaryOf } from './report.ts';
import { runSuite, Unfit } from './suite.ts';

const EXIT_NOT_MET = 1;
const EXIT_NOT_RUN = 2;
/** Of what should come at once; a heartbeat has a bound of its own. */
const PATIENCE_MS = 10_000;

/** From the command line to the exit code. */
async function main(args: string[], environment: NodeJS.ProcessEnv): Promise<number> {
  const config = parseConfig(args, environment);
  if (config === null) {
    say(HELP.trimEnd());
    return 0;
  }
  const isText = config.output === 'text';
  const target = {
    admin: config.url,
    serving: config.serving,
    token: (await read(config.tokenFile, 'token-file'))?.trim() ?? null,
    tls: await readTls(config),
  };
  const outcome = await runSuite({
    target,
    checks: chosen(config.only),
    isForced: config.isForced,
    salt: randomUUID(),
    patienceMs: PATIENCE_MS,
    onResult: (result) => isText && say(lineOf(result)),
  });
  const run = { ...outcome, target: { admin: target.admin, serving: target.serving } };
  if (isText) say(summaryLine(outcome.results));
  else say(config.output === 'json' ? jsonOf(run) : junitOf(run));
  return summaryOf(outcome.results).failed > 0 ? EXIT_NOT_MET : 0;
}

function chosen(only: string): Check[] {
  const checks = CHECKS.filter(({ name }) => name.includes(only));
  if (checks.length > 0) return checks;
  throw new ConfigError(`Expected part of a check's name for --only but received ${only}`);
}

async function readTls({ caFile, certFile, keyFile }: SuiteConfig): Promise<Tls> {
  const [ca, cert, key] = [
    await read(caFile, 'ca'),
    await read(certFile, 'cert'),
    await read(keyFile, 'key'),
  ];
  return { ...(ca !== null && { ca }), ...(cert !== null && { cert }), ...(key !== null && { key }) };
}

async function read(file: string | null, flag: string): Promise<string | null> {
  if (file === null) return null;
  return readFile(file, 'utf8').catch((cause: Error) => {
    throw new ConfigError(`--${flag}: ${cause.message}`, { cause });
  });
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

main(process.argv.slice(2), process.env).then(
  (code) => {
    process.exitCode = code;
  },
  (error: Error) => {
    const isPlain = error instanceof ConfigError || error instanceof Unfit;
    process.stderr.write(`${isPlain ? error.message : error.stack}\n`);
    process.exitCode = EXIT_NOT_RUN;
  },
);
