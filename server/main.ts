import { startServer } from './app.ts';
import { HELP, parseConfig } from './config.ts';
import { LorikeetError } from './contract/errors.ts';
import { runProgram } from './contract/program.ts';
import { ModelError } from './model/errors.ts';
import { TextFileError } from './text/files.ts';

runProgram({
  help: HELP,
  parse: parseConfig,
  start: (config, log) => {
    log.info({ model: config.model }, 'opening the model');
    return startServer(config, log);
  },
  isPlain: (error) =>
    error instanceof ModelError || error instanceof TextFileError || error instanceof LorikeetError,
});
