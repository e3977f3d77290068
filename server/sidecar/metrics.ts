import { VLLM } from '../telemetry/metric-names.ts';

/** What this server knows better than the engine: adapters by their served names. */
const OURS: ReadonlySet<string> = new Set([
  VLLM.loraRequests,
  VLLM.gpuLoadedAdapters,
  VLLM.cpuLoadedAdapters,
  VLLM.adapterLoaded,
  VLLM.maxGpuAdapters,
  VLLM.adapterLoadSeconds,
]);

/** The engine's metrics and ours as one text, no family in both. */
export function mergedMetrics(engine: string, own: string): string {
  const mine = familiesOf(own, (family) => OURS.has(family) || family.startsWith('lorikeet_'));
  return familiesOf(engine, (family) => !OURS.has(family) && !family.startsWith('lorikeet_')) + mine;
}

/** The families of a text in Prometheus' format that are wanted, each with its HELP and TYPE. */
function familiesOf(metrics: string, wants: (family: string) => boolean): string {
  let isWanted = true;
  const kept = metrics.split('\n').filter((line) => {
    const family = /^# (?:HELP|TYPE) (\S+)/.exec(line)?.[1];
    if (family !== undefined) isWanted = wants(family);
    return isWanted && line !== '';
  });
  return kept.length === 0 ? '' : `${kept.join('\n')}\n`;
}
