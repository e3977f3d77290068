import { type Logger, pino } from 'pino';

export const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** JSON lines on stderr. Whatever could carry a token is left out by name, wherever it sits. */
export function createLog(level: LogLevel): Logger {
  const paths = [
    'token',
    'authorization',
    '*.token',
    '*.authorization',
    '*.headers',
    'err.config',
    'err.request',
  ];
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths, remove: true },
      formatters: { level: (label) => ({ level: label }) },
    },
    pino.destination({ dest: 2, sync: true }),
  );
}
