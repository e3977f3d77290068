import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const SECRETS = ['authorization', 'cookie', 'token'].flatMap((name) => [
  name,
  `headers.${name}`,
  `*.${name}`,
  `*.headers.${name}`,
]);

/** One JSON object a line on stderr; stdout is kept for the line that says where the server listens. */
export function createLog(
  level: LogLevel,
  stream: DestinationStream = destination({ dest: 2, sync: true }),
): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: SECRETS, censor: '[redacted]' },
    },
    stream,
  );
}
