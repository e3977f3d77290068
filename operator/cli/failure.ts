/** What the exit codes of `kubectl lora` mean. */
export const EXIT = { done: 0, failed: 1, misused: 2, timedOut: 3 } as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** Why a command ends without having done what it was asked; `todo` says what to do about it. */
export class CommandFailure extends Error {
  readonly exit: ExitCode;
  readonly todo: string | null;

  constructor(message: string, detail: { todo?: string | null; exit?: ExitCode; cause?: unknown } = {}) {
    super(message, { cause: detail.cause });
    this.name = 'CommandFailure';
    this.exit = detail.exit ?? EXIT.failed;
    this.todo = detail.todo ?? null;
  }
}

export class Misuse extends CommandFailure {
  constructor(message: string, todo: string | null = null) {
    super(message, { exit: EXIT.misused, todo });
    this.name = 'Misuse';
  }
}
