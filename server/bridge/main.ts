import { runProgram } from '../contract/program.ts';
import { startBridge } from './app.ts';
import { HELP, parseConfig } from './config.ts';

runProgram({ help: HELP, parse: parseConfig, start: startBridge, isPlain: () => false });
