import type { Series } from './prometheus.ts';
import { inUnit } from './units.ts';

/** The course of series as SVG, roughly as Grafana draws it. */

export interface Line {
  name: string;
  color: string;
  points: Series['points'];
}

export interface Chart {
  lines: Line[];
  unit: string;
  isStacked: boolean;
  /** Dashed, with its colour. */
  marks: { value: number; color: string }[];
  width: number;
  height: number;
  startSeconds: number;
  endSeconds: number;
}

export const COLOURS = [
  '#7eb26d',
  '#eab839',
  '#6ed0e0',
  '#ef843c',
  '#e24d42',
  '#1f78c1',
  '#ba43a9',
  '#b877d9',
];

/** Of a letter, roughly. */
export const LETTER = 6.6;
const BOTTOM = 22;
const TOP = 8;
const TICKS = 4;

export function colourOf(index: number): string {
  return COLOURS[index % COLOURS.length] as string;
}

export function svgOf(chart: Chart): string {
  const { lines, unit, isStacked, width, height } = chart;
  const drawn = isStacked ? stacked(lines) : lines;
  const values = drawn.flatMap(({ points }) => points.map(([, value]) => value)).filter(Number.isFinite);
  const [low, high] = rangeOf(values, unit);
  const left = 14 + LETTER * Math.max(...ticksOf(low, high).map((value) => inUnit(value, unit).length));
  const x = (at: number) =>
    left + ((at - chart.startSeconds) / (chart.endSeconds - chart.startSeconds)) * (width - left - 10);
  const y = (value: number) => TOP + (1 - (value - low) / (high - low)) * (height - TOP - BOTTOM);
  const parts = [...axes({ low, high, left, x, y, chart })];
  for (const { value, color } of chart.marks) {
    if (value < low || value > high) continue;
    parts.push(
      `<line x1="${left}" x2="${width - 10}" y1="${y(value)}" y2="${y(value)}" stroke="${color}" stroke-dasharray="6 4"/>`,
    );
  }
  // The highest of a stack first, so that the others lie over it.
  for (const { points, color } of isStacked ? drawn.toReversed() : drawn) {
    for (const piece of unbroken(points)) {
      const path = piece.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
      const [first, last] = [piece[0] as [number, number], piece.at(-1) as [number, number]];
      if (isStacked)
        parts.push(
          `<polygon points="${x(first[0])},${y(0)} ${path.join(' ')} ${x(last[0])},${y(0)}" fill="${color}" fill-opacity="0.9"/>`,
        );
      else
        parts.push(
          `<polyline points="${path.join(' ')}" fill="none" stroke="${color}" stroke-width="2" stroke-linejoin="round"/>`,
        );
    }
  }
  return `<svg width="${width}" height="${height}">${parts.join('')}</svg>`;
}

interface Axes {
  low: number;
  high: number;
  left: number;
  x: (at: number) => number;
  y: (value: number) => number;
  chart: Chart;
}

function* axes({ low, high, left, x, y, chart }: Axes): Generator<string> {
  const { width, height, unit, startSeconds, endSeconds } = chart;
  for (const value of ticksOf(low, high)) {
    yield `<line x1="${left}" x2="${width - 10}" y1="${y(value)}" y2="${y(value)}" stroke="#2c3235"/>`;
    yield `<text x="${left - 8}" y="${y(value) + 4}" text-anchor="end">${inUnit(value, unit)}</text>`;
  }
  const stepSeconds = (endSeconds - startSeconds) / 4;
  for (let at = startSeconds + stepSeconds / 2; at < endSeconds; at += stepSeconds) {
    const time = new Date(at * 1000).toISOString().slice(11, 19);
    yield `<text x="${x(at)}" y="${height - 5}" text-anchor="middle">${time}</text>`;
  }
}

function rangeOf(values: number[], unit: string): [low: number, high: number] {
  const top = Math.max(0, ...values);
  if (unit === 'percentunit' && top <= 1) return [0, top > 0.5 ? 1 : roundUp(top || 0.01)];
  // Steps of a trainer are worth the whole height.
  if (unit === 'none' && Math.min(...values) > 50)
    return [Math.floor(Math.min(...values)), Math.ceil(top) + 1];
  if (unit === 'none') return [0, Math.max(4, Math.ceil(top / 4) * 4)];
  if (unit === 's' && top > 60) return [0, TICKS * 60 * Math.ceil(top / 60 / TICKS)];
  if (unit === 'bytes' && top > 0) {
    const size = 1024 ** Math.floor(Math.log(top) / Math.log(1024));
    return [0, size * roundUp(top / size)];
  }
  return [0, roundUp(top || 1)];
}

function ticksOf(low: number, high: number): number[] {
  return Array.from({ length: TICKS + 1 }, (_, tick) => low + ((high - low) * tick) / TICKS);
}

function roundUp(value: number): number {
  const size = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 4, 8, 10].find((digit) => digit * size >= value) ?? 10) * size;
}

function stacked(lines: Line[]): Line[] {
  const below = new Map<number, number>();
  return lines.map(({ points, ...line }) => ({
    ...line,
    points: points.map(([at, value]): [number, number] => {
      const sum = (below.get(at) ?? 0) + (Number.isFinite(value) ? value : 0);
      below.set(at, sum);
      return [at, sum];
    }),
  }));
}

/** A value that is no number ends a piece. */
function unbroken(points: Series['points']): Series['points'][] {
  const pieces: Series['points'][] = [[]];
  for (const point of points) {
    if (Number.isFinite(point[1])) pieces.at(-1)?.push(point);
    else pieces.push([]);
  }
  return pieces.filter((piece) => piece.length > 0);
}
