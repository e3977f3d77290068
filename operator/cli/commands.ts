import type { Command } from './command.ts';
import { completion } from './commands/completion.ts';
import { diff } from './commands/diff.ts';
import { push } from './commands/push.ts';
import { rolloutHistory, rolloutStatus, rolloutUndo } from './commands/rollout.ts';
import { status } from './commands/status.ts';
import { top } from './commands/top.ts';
import { why } from './commands/why.ts';

/** In the order of the help. */
export const COMMANDS: readonly Command[] = [
  push,
  status,
  why,
  rolloutStatus,
  rolloutHistory,
  rolloutUndo,
  top,
  diff,
  completion,
];
