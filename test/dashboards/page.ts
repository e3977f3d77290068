import { colourOf, LETTER, type Line, svgOf } from './chart.ts';
import { filledIn, type Heading, type Panel } from './dashboard.ts';
import type { Range, Series } from './prometheus.ts';
import { inUnit } from './units.ts';

/** What the queries of a panel found, in their order. */
export interface Answered {
  panel: Panel;
  answers: Series[][];
}

export interface Page {
  title: string;
  chosen: Record<string, string>;
  headings: Heading[];
  answered: Answered[];
  range: Range;
}

const COLUMN = 58;
const ROW = 30;
const GAP = 6;
export const PAGE_WIDTH = 24 * COLUMN + 16;
const PANEL_COLOURS: Record<string, string> = {
  green: '#2f7d46',
  orange: '#c15c17',
  red: '#ad1f2d',
  blue: '#1f60c4',
};

const SERIES_COLOURS: Record<string, string> = {
  green: '#73bf69',
  orange: '#ff9830',
  red: '#f2495c',
  blue: '#5794f2',
};

export function heightOf({ answered }: Page): number {
  return 60 + ROW * Math.max(...answered.map(({ panel: { gridPos } }) => gridPos.y + gridPos.h));
}

/** A dashboard as a page without scripts. */
export function htmlOf(page: Page): string {
  const { title, chosen, headings, answered } = page;
  const variables = Object.entries(chosen).map(
    ([name, value]) => `${name}: ${value === '.*' ? 'All' : value}`,
  );
  const boxes = [
    ...headings.map(({ title: text, gridPos }) => box(gridPos, 'heading', escaped(text))),
    ...answered.map((one) => box(one.panel.gridPos, 'panel', panelHtml(one, page))),
  ];
  return `<!doctype html><meta charset="utf-8"><style>${STYLE}</style>
<header><b>${escaped(title)}</b><span>${escaped(variables.join('   '))}</span></header>
<main>${boxes.join('\n')}</main>`;
}

type Place = Panel['gridPos'];

function box({ x, y, w, h }: Place, kind: string, html: string): string {
  const place = `left:${x * COLUMN}px;top:${y * ROW}px;width:${w * COLUMN - GAP}px;height:${h * ROW - GAP}px`;
  return `<div class="${kind}" style="${place}">${html}</div>`;
}

function panelHtml({ panel, answers }: Answered, page: Page): string {
  const title = `<h2>${escaped(panel.title)}</h2>`;
  if (panel.type === 'stat') return statHtml(panel, answers);
  const body = panel.type === 'table' ? tableHtml(panel, answers) : graphHtml(panel, answers, page);
  return title + body;
}

function statHtml({ title, fieldConfig: { defaults } }: Panel, answers: Series[][]): string {
  const value = answers[0]?.[0]?.points.at(-1)?.[1] ?? Number.NaN;
  const { steps } = defaults.thresholds;
  const step = steps.findLast((one) => one.value === null || value >= one.value);
  const colour = Number.isFinite(value) ? PANEL_COLOURS[step?.color ?? ''] : '#333';
  const text = Number.isFinite(value) ? inUnit(value, defaults.unit) : 'No data';
  return `<div class="stat" style="background:${colour}"><h2>${escaped(title)}</h2><p>${text}</p></div>`;
}

function tableHtml({ fieldConfig: { defaults }, transformations = [] }: Panel, answers: Series[][]): string {
  const rows = answers.flat();
  if (rows.length === 0) return '<p class="empty">No data</p>';
  const names = Object.keys(rows[0]?.labels ?? {});
  const column = transformations.flatMap(({ options }) => options.renameByName?.Value ?? [])[0] ?? 'Value';
  const cells = rows.map(({ labels, points }) => [
    ...names.map((name) => labels[name] ?? ''),
    inUnit(points.at(-1)?.[1] ?? Number.NaN, defaults.unit),
  ]);
  const tr = (tag: string, texts: string[]) =>
    `<tr>${texts.map((text) => `<${tag}>${escaped(text)}</${tag}>`).join('')}</tr>`;
  return `<table>${tr('th', [...names, column])}${cells.map((texts) => tr('td', texts)).join('')}</table>`;
}

function graphHtml(panel: Panel, answers: Series[][], { range }: Page): string {
  const { defaults } = panel.fieldConfig;
  const named = answers.flatMap((series, index) =>
    series.map(({ labels, points }) => ({
      name: legendOf(panel.targets[index]?.legendFormat ?? '', labels),
      points,
    })),
  );
  const lines: Line[] = named.map((line, index) => ({
    ...line,
    color: overrideOf(panel, line.name) ?? colourOf(index),
  }));
  if (lines.length === 0) return '<p class="empty">No data</p>';
  const { w, h } = panel.gridPos;
  const width = w * COLUMN - GAP - 12;
  const legend = lines.map(({ name, points, color }) => ({
    color,
    name,
    value: inUnit(lastOf(points), defaults.unit),
  }));
  const legendRows = rowsOf(
    legend.map(({ name, value }) => 44 + 1.1 * LETTER * (name.length + value.length + 1)),
    width,
  );
  const svg = svgOf({
    lines,
    unit: defaults.unit,
    isStacked: defaults.custom?.stacking.mode === 'normal',
    marks: defaults.thresholds.steps.flatMap(({ value, color }) =>
      value === null ? [] : [{ value, color: PANEL_COLOURS[color] ?? color }],
    ),
    width,
    height: h * ROW - GAP - 40 - 17 * legendRows,
    startSeconds: range.startSeconds,
    endSeconds: range.endSeconds,
  });
  const texts = legend.map(
    ({ color, name, value }) =>
      `<span><i style="background:${color}"></i>${escaped(name)} <b>${value}</b></span>`,
  );
  return `${svg}<footer>${texts.join('')}</footer>`;
}

function overrideOf({ fieldConfig }: Panel, name: string): string | undefined {
  const found = fieldConfig.overrides.find(({ matcher }) =>
    new RegExp(matcher.options.slice(1, -1)).test(name),
  );
  const color = found?.properties[0].value.fixedColor;
  return color === undefined ? undefined : (SERIES_COLOURS[color] ?? color);
}

/** Rows that words of these widths take. */
function rowsOf(widths: number[], width: number): number {
  let rows = 1;
  let at = 0;
  for (const one of widths) {
    if (at > 0 && at + one > width) {
      rows += 1;
      at = 0;
    }
    at += one;
  }
  return rows;
}

function lastOf(points: Series['points']): number {
  return points.findLast(([, value]) => Number.isFinite(value))?.[1] ?? Number.NaN;
}

function legendOf(format: string, labels: Record<string, string>): string {
  return filledIn(
    format.replaceAll(/\{\{(\w+)\}\}/g, (_, name: string) => labels[name] ?? ''),
    {},
  );
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

const STYLE = `
body { margin: 8px; background: #111217; color: #d8d9da; font: 13px/1.35 sans-serif; }
header { height: 36px; font-size: 19px; } header span { margin-left: 24px; font-size: 14px; color: #9fa7b3; white-space: pre; }
main { position: relative; }
main > div { position: absolute; overflow: hidden; }
.heading { font-size: 15px; font-weight: bold; padding-top: 2px; }
.panel { background: #181b1f; border: 1px solid #2c3235; box-sizing: border-box; padding: 4px 6px; }
h2 { margin: 0 0 4px; font-size: 14px; font-weight: 600; }
.stat { position: absolute; inset: 0; padding: 6px 8px; color: #fff; text-align: center; }
.stat p { margin: 14px 0 0; font-size: 30px; font-weight: 600; }
.empty { text-align: center; color: #9fa7b3; margin-top: 60px; }
svg text { fill: #9fa7b3; font-size: 12px; }
footer { font-size: 12px; } footer span { display: inline-block; margin-right: 14px; white-space: nowrap; }
footer i { display: inline-block; width: 14px; height: 4px; margin: 0 5px 3px 0; }
table { width: 100%; border-collapse: collapse; } th, td { text-align: left; padding: 4px 6px; border-bottom: 1px solid #2c3235; }
th { color: #6ea6ff; }
`;
