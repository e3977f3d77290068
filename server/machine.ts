import { availableParallelism, totalmem } from 'node:os';
import { ConfigError } from './contract/flags.ts';

/** What this process may use: of the machine, or of its container. */
export interface Machine {
  processors: number;
  memoryBytes: number;
}

export function thisMachine(): Machine {
  // 0, or more than any machine has, where there is no limit.
  const limitBytes = process.constrainedMemory() || Number.POSITIVE_INFINITY;
  return { processors: availableParallelism(), memoryBytes: Math.min(totalmem(), limitBytes) };
}

/** Memory is taken as it is written: what cannot be had would end the process in the middle of its work. */
export function requireMemory(flag: string, bytes: number, { memoryBytes }: Machine): void {
  if (bytes <= memoryBytes) return;
  throw new ConfigError(
    `Expected at most the ${memoryBytes} bytes of memory that there are for ${flag} but received ${bytes}`,
  );
}
