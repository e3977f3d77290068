/** What a command writes to; tests put their own in its place. */
export interface Io {
  out(text: string): void;
  err(text: string): void;
  /** Whether people look at stderr while it is written. */
  isErrTty: boolean;
  env: NodeJS.ProcessEnv;
  now(): Date;
}

export function processIo(): Io {
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    isErrTty: process.stderr.isTTY === true,
    env: process.env,
    now: () => new Date(),
  };
}
