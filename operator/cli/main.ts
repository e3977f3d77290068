import { basename } from 'node:path';
import { processIo } from './io.ts';
import { COMPLETE, run } from './run.ts';

// Whoever reads only the first lines, as `head` does, has what it wants.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

const [, program = '', ...argv] = process.argv;
const isAsked = basename(program) === 'kubectl_complete-lora';
process.exitCode = await run(isAsked ? [COMPLETE, ...argv] : argv, processIo());
