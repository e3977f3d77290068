/** Grafana's dashboards, as far as ours need them. */

export type Unit =
  | 'short'
  | 's'
  | '/min'
  | 'reqps'
  | 'bytes'
  | 'Bps'
  | 'percentunit'
  | 'hex'
  | 'none'
  | 'bool_yes_no'
  | 'tokens/s';

/** An expression and what its series are called. */
export type Query = readonly [expr: string, legend: string];

export interface Panel {
  title: string;
  unit: Unit;
  /** What it shows, and what to make of it. */
  description: string;
  queries: readonly Query[];
  /** Of 24 columns. */
  width: number;
  kind?: 'timeseries' | 'stat' | 'table';
  isStacked?: boolean;
  /** Of a table: what its numbers are. */
  column?: string;
  /** Series whose names match have this colour. */
  colours?: readonly (readonly [pattern: string, colour: string])[];
  /** From these values on it is yellow, or red; `falls`: below them. */
  alarm?: { warn?: number; bad?: number; falls?: boolean };
}

export interface Row {
  title: string;
  height: number;
  panels: readonly Panel[];
}

export interface Variable {
  name: string;
  label: string;
  /** label_values(…). */
  query: string;
  /** Any number of values, all of them at first. */
  isMany?: boolean;
  isHidden?: boolean;
}

export interface Dashboard {
  file: string;
  title: string;
  description: string;
  variables: readonly Variable[];
  rows: readonly Row[];
}

const SCHEMA_VERSION = 41;
const DATASOURCE = { type: 'prometheus', uid: '$datasource' };

/** The JSON model that Grafana imports. */
export function modelOf({ file, title, description, variables, rows }: Dashboard): object {
  return {
    uid: `lorikeet-${file}`,
    title,
    description,
    tags: ['lorikeet'],
    schemaVersion: SCHEMA_VERSION,
    version: 1,
    editable: true,
    graphTooltip: 1,
    timezone: 'browser',
    time: { from: 'now-1h', to: 'now' },
    refresh: '30s',
    links: [
      {
        type: 'dashboards',
        title: 'Lorikeet',
        tags: ['lorikeet'],
        asDropdown: false,
        includeVars: true,
        keepTime: true,
        targetBlank: false,
      },
    ],
    annotations: { list: [] },
    templating: { list: [datasourceVariable(), ...variables.map(variableOf)] },
    panels: panelsOf(rows),
  };
}

function datasourceVariable(): object {
  return { name: 'datasource', label: 'Data source', type: 'datasource', query: 'prometheus', hide: 0 };
}

function variableOf({ name, label, query, isMany = false, isHidden = false }: Variable): object {
  return {
    name,
    label,
    type: 'query',
    datasource: DATASOURCE,
    query: { query, refId: name },
    definition: query,
    refresh: 2,
    sort: 1,
    hide: isHidden ? 2 : 0,
    multi: isMany,
    includeAll: isMany,
    // So that what has no such label counts as well.
    ...(isMany && { allValue: '.*', current: { text: ['All'], value: ['$__all'] } }),
  };
}

function panelsOf(rows: readonly Row[]): object[] {
  const panels: object[] = [];
  let y = 0;
  for (const row of rows) {
    panels.push({
      id: panels.length + 1,
      type: 'row',
      title: row.title,
      collapsed: false,
      gridPos: { x: 0, y, w: 24, h: 1 },
      panels: [],
    });
    y += 1;
    let x = 0;
    for (const panel of row.panels) {
      const gridPos = { x, y, w: panel.width, h: row.height };
      panels.push({ id: panels.length + 1, ...panelOf(panel), gridPos });
      x += panel.width;
    }
    if (x !== 24) throw new Error(`Expected panels of 24 columns in row ${row.title} but they have ${x}`);
    y += row.height;
  }
  return panels;
}

function panelOf({ kind = 'timeseries', ...panel }: Panel): object {
  return {
    type: kind,
    title: panel.title,
    description: panel.description,
    datasource: DATASOURCE,
    fieldConfig: {
      defaults: fieldDefaults({ kind, ...panel }),
      overrides: (panel.colours ?? []).map(overrideOf),
    },
    options: OPTIONS[kind],
    targets: panel.queries.map(([expr, legendFormat], index) => ({
      refId: String.fromCharCode('A'.charCodeAt(0) + index),
      datasource: DATASOURCE,
      expr,
      legendFormat,
      ...(kind === 'timeseries'
        ? { range: true, instant: false }
        : { range: false, instant: true, format: kind === 'table' ? 'table' : 'time_series' }),
    })),
    ...(kind === 'table' && { transformations: tableOf(panel.column ?? 'Value') }),
  };
}

const LIST = { displayMode: 'list', placement: 'bottom', showLegend: true, calcs: [] };
const OPTIONS = {
  timeseries: { legend: LIST, tooltip: { mode: 'multi', sort: 'desc' } },
  stat: {
    colorMode: 'background',
    graphMode: 'none',
    justifyMode: 'center',
    textMode: 'auto',
    reduceOptions: { calcs: ['lastNotNull'], fields: '', values: false },
  },
  table: { showHeader: true, cellHeight: 'sm', footer: { show: false, reducer: [], countRows: false } },
};

function tableOf(column: string): object[] {
  const names = { excludeByName: { Time: true }, renameByName: { Value: column } };
  return [
    { id: 'merge', options: {} },
    { id: 'organize', options: names },
  ];
}

function fieldDefaults({ kind, unit, alarm, isStacked = false }: Panel): object {
  const custom = {
    drawStyle: 'line',
    lineWidth: 1,
    fillOpacity: isStacked ? 40 : 8,
    showPoints: 'never',
    spanNulls: false,
    stacking: { mode: isStacked ? 'normal' : 'none', group: 'A' },
    thresholdsStyle: { mode: alarm === undefined ? 'off' : 'dashed' },
  };
  return {
    unit: unit === 'tokens/s' || unit === '/min' ? `suffix: ${unit}` : unit,
    ...(unit !== 'hex' && { min: 0 }),
    color: { mode: kind === 'timeseries' ? 'palette-classic' : 'thresholds' },
    thresholds: { mode: 'absolute', steps: stepsOf(alarm) },
    ...(kind === 'timeseries' && { custom }),
  };
}

function overrideOf([pattern, fixedColor]: readonly [string, string]): object {
  return {
    // Without slashes Grafana would take it for the whole name.
    matcher: { id: 'byRegexp', options: `/${pattern}/` },
    properties: [{ id: 'color', value: { mode: 'fixed', fixedColor } }],
  };
}

/** Blue where no value is better than another. */
function stepsOf(alarm: Panel['alarm']): object[] {
  if (alarm === undefined) return [{ color: 'blue', value: null }];
  const { warn, bad, falls = false } = alarm;
  const marks = [
    ...(warn === undefined ? [] : [{ value: warn, color: 'orange' }]),
    ...(bad === undefined ? [] : [{ value: bad, color: 'red' }]),
  ];
  if (!falls)
    return [{ color: 'green', value: null }, ...marks.map(({ color, value }) => ({ color, value }))];
  // A value has the colour of the last step below it.
  const colours = [...marks.reverse().map(({ color }) => color), 'green'];
  return colours.map((color, index) => ({
    color,
    value: index === 0 ? null : (marks[index - 1]?.value ?? null),
  }));
}

export function quantile(part: number, histogram: string, selector = ''): string {
  return `histogram_quantile(${part}, sum by (le) (rate(${histogram}_bucket${selector}[$__rate_interval])))`;
}

/** For what is rare: so many in a minute. */
export function perMinute(counter: string, selector = '', by = ''): string {
  return `60 * sum${by && ` by (${by})`} (rate(${counter}${selector}[$__rate_interval]))`;
}

/** The median and the slow ends of a histogram, over pods. */
export function quantiles(histogram: string, selector = '', parts = [0.5, 0.95, 0.99]): Query[] {
  return parts.map((part) => [quantile(part, histogram, selector), `p${part * 100}`]);
}

/** One slow end of a histogram for each value of a label. */
export function quantileBy(label: string, part: number, histogram: string, selector = ''): Query {
  const rate = `rate(${histogram}_bucket${selector}[$__rate_interval])`;
  return [`histogram_quantile(${part}, sum by (le, ${label}) (${rate}))`, `{{${label}}}`];
}
