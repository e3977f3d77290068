import { spawn } from 'node:child_process';

const HEARTBEAT_MS = 3_000;
const OUTPUT_CHARS_MAX = 8_000;

/** A failure that the reader of the terminal can act on: it is printed without a stack. */
export class SetupError extends Error {}

let quiet = false;

/** Silences progress; failures are still printed. */
export function beQuiet() {
  quiet = true;
}

/** Everything goes to stderr: stdout belongs to the program that is started after the setup. */
export function say(line) {
  if (!quiet) process.stderr.write(`setup: ${line}\n`);
}

export function duration(ms) {
  const seconds = Math.round(ms / 1000);
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** Says every few seconds what is under way, for how long, and how long it takes as a rule. */
export async function withProgress(label, about, work) {
  const started = Date.now();
  say(`${label} (about ${about})`);
  const timer = setInterval(
    () => say(`${label}: ${duration(Date.now() - started)} of about ${about}`),
    HEARTBEAT_MS,
  );
  try {
    const result = await work();
    say(`${label}: done in ${duration(Date.now() - started)}`);
    return result;
  } finally {
    clearInterval(timer);
  }
}

/**
 * Runs a command with its output kept for the case that it fails.
 * @param {string} command
 * @param {string[]} args
 * @param {{cwd?: string, env?: NodeJS.ProcessEnv}} options
 * @returns {Promise<string>} what it wrote to stdout
 */
export function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    const stop = (signal) => {
      child.kill(signal);
      process.exit(130);
    };
    const end = () => child.kill();
    process.once('SIGINT', stop);
    process.once('SIGTERM', stop);
    process.once('exit', end);
    let stdout = '';
    let tail = '';
    child.stdout.on('data', (chunk) => {
      stdout = (stdout + chunk).slice(-OUTPUT_CHARS_MAX);
      tail = (tail + chunk).slice(-OUTPUT_CHARS_MAX);
    });
    child.stderr.on('data', (chunk) => {
      tail = (tail + chunk).slice(-OUTPUT_CHARS_MAX);
    });
    child.once('error', reject);
    child.once('close', (code, signal) => {
      process.off('SIGINT', stop);
      process.off('SIGTERM', stop);
      process.off('exit', end);
      if (code === 0) resolve(stdout);
      else reject(new SetupError(`${command} ${args.join(' ')} ended with ${signal ?? code}:\n${tail}`));
    });
  });
}

/** The command's stdout, or null where it is missing or fails. */
export async function tryRun(command, args, options) {
  try {
    return await run(command, args, options);
  } catch {
    return null;
  }
}
