import { filledIn, parseDashboard } from './dashboard.ts';
import type { Prometheus } from './prometheus.ts';

const LABEL_VALUES = /^label_values\((.*), (\w+)\)$/;

/**
 * A value for each variable of a dashboard, found as Grafana finds them, one after the other: All where that can be chosen,
 * else what `prefer` names, else the first.
 */
export async function chosenOf(
  json: string,
  prometheus: Pick<Prometheus, 'labelValues'>,
  prefer: Record<string, string> = {},
): Promise<Record<string, string>> {
  const chosen: Record<string, string> = {};
  for (const { name, type, query, allValue } of parseDashboard(json).templating.list) {
    if (type !== 'query') continue;
    const text = (query as { query: string }).query;
    const [, selector = '', label = ''] = LABEL_VALUES.exec(text) ?? [];
    const values = await prometheus.labelValues(filledIn(selector, chosen), label);
    if (values.length === 0) throw new Error(`${text} finds no value for ${name}`);
    const wanted = prefer[name];
    if (wanted !== undefined && !values.includes(wanted))
      throw new Error(`Expected ${wanted} among ${values.join(', ')} for ${name}`);
    chosen[name] = wanted ?? allValue ?? (values[0] as string);
  }
  return chosen;
}
