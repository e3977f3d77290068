import type { Io } from '../../../operator/cli/io.ts';

/** What a command writes, kept. */
export class Terminal implements Io {
  readonly env: NodeJS.ProcessEnv;
  isErrTty = false;
  stdout = '';
  stderr = '';

  constructor(env: NodeJS.ProcessEnv = {}) {
    this.env = env;
  }

  out(text: string): void {
    this.stdout += text;
  }

  err(text: string): void {
    this.stderr += text;
  }

  now(): Date {
    return new Date('2026-06-10T12:00:00Z');
  }
}
