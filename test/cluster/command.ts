import { spawn } from 'node:child_process';

export interface CommandOptions {
  input?: string | undefined;
  env?: NodeJS.ProcessEnv;
}

export class CommandFailed extends Error {
  readonly code: number | null;
  readonly stdout: string;

  constructor(command: string, outcome: { code: number | null; stdout: string; stderr: string }) {
    super(`${command} ended with ${outcome.code}: ${outcome.stderr || outcome.stdout}`);
    this.code = outcome.code;
    this.stdout = outcome.stdout;
  }
}

/** Runs a command to its end and returns its stdout; a failure carries what it wrote to stderr. */
export function runCommand(command: string, args: string[], options: CommandOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: options.env ?? process.env });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      stdout += chunk;
    });
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      stderr += chunk;
    });
    child.once('error', reject);
    child.once('close', (code) => {
      if (code === 0) resolve(stdout);
      else reject(new CommandFailed([command, ...args].join(' '), { code, stdout, stderr }));
    });
    // A command that refuses early closes its stdin; its exit code tells the story.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}
