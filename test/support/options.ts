import { type ParseArgsConfig, parseArgs } from 'node:util';

/** The options of a command line; what is wrong is said with `usage`, and ends the process with 2. */
export function readOptions<T extends ParseArgsConfig>(
  usage: string,
  config: T,
): ReturnType<typeof parseArgs<T>>['values'] {
  try {
    return parseArgs(config).values;
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${usage}\n`);
    process.exit(2);
  }
}
