import { startServer } from './app.ts';
import { HELP, parseConfig } from './config.ts';
import { LorikeetError } from './contract/errors.ts';
import { runProgram } from './contract/program.ts';
import { ModelError } from './model/errors.ts';
import { startSidecar } from './sidecar-app.ts';
import { TextFileError } from './text/files.ts';

runProgram({
  help: HELP,
  parse: parseConfig,
  start: (config, log) => {
    log.info({ model: config.model }, 'opening the model');
    return config.attached === null ? startServer(config, log) : startSidecar(config, config.attached, log);
  },
  isPlain: (error) =>
    error instanceof ModelError || error instanceof TextFileError || error instanceof LorikeetError,
});
