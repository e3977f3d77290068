/** When the process began, as its metrics say it; null where they do not. */
export function processStart(metrics: string): string | null {
  return /^process_start_time_seconds(?:\{[^}]*\})?\s+(\S+)/m.exec(metrics)?.[1] ?? null;
}

/** A label of the first sample of a metric; null where there is none. */
export function sampleLabel(metrics: string, name: string, label: string): string | null {
  const line = metrics.split('\n').find((text) => text.startsWith(`${name}{`));
  return (line && new RegExp(`[{,]${label}="([^"]*)"`).exec(line)?.[1]) ?? null;
}
