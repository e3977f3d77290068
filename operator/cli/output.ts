import { stringify } from 'yaml';
import type { Invocation } from './command.ts';

/** Prints `value` for programs where -o says so, else the text for people. */
export function print({ io, flags }: Invocation, value: unknown, text: (isWide: boolean) => string): void {
  const how = flags.text('output');
  if (how === 'json') io.out(`${JSON.stringify(value, null, 4)}\n`);
  else if (how === 'yaml') io.out(stringify(value, { lineWidth: 0 }));
  else io.out(text(how === 'wide'));
}
