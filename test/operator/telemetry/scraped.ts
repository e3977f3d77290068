import { buildHealthApp } from '../../../operator/telemetry/health.ts';
import type { OperatorMetrics } from '../../../operator/telemetry/metrics.ts';

/** What a scrape has of one metric, by its labels as they are written. */
export async function scrapedFrom(
  { registry }: OperatorMetrics,
  name: string,
): Promise<Record<string, number>> {
  const app = buildHealthApp({ registry, notReady: () => null });
  const { body } = await app.inject('/metrics');
  const samples = body.matchAll(new RegExp(`^lorikeet_operator_${name}(?:\\{(.*)\\})? (.*)$`, 'gm'));
  return Object.fromEntries([...samples].map(([, labels = '', value]) => [labels, Number(value)]));
}
