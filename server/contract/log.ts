import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino';
import { traceFields } from './trace.ts';

export const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Wherever they sit; the last two are how HTTP clients' errors carry the headers that they sent. */
const SECRETS = [
  ...['authorization', 'cookie', 'token'].flatMap((name) => [
    name,
    `headers.${name}`,
    `*.${name}`,
    `*.headers.${name}`,
  ]),
  'err.config',
  'err.request',
];

/** Of both programs: a JSON object a line on stderr; stdout is kept for the line that says where a server listens. */
export function createLog(
  level: LogLevel,
  stream: DestinationStream = destination({ dest: 2, sync: true }),
): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      mixin: traceFields,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: SECRETS, censor: '[redacted]' },
    },
    stream,
  );
}
