import { type Measured, type Row, summarize } from './report.ts';

const WIDTH = 860;
const LEFT = 250;
const RIGHT = 130;
const TOP = 64;
const BAR = 14;
const GAP = 16;
const FIRST = '#2f81f7';
const COLOURS: Record<string, string> = { ours: FIRST, 'llama.cpp': '#db8b3f', vLLM: '#8a8f98' };

/** Bars of tokens per second as shares of the machine's limit for the case; readable on white and on black. */
export function chartSvg(measured: Measured): string {
  const rows = summarize(measured);
  const longest = Math.max(
    1,
    ...rows.flatMap((row) => Object.values(row.rates).map((rate) => shareOf(row, rate))),
  );
  const scale = (WIDTH - LEFT - RIGHT) / longest;
  const parts: string[] = [];
  let y = TOP;
  for (const row of rows) {
    const bars = Object.entries(row.rates);
    const middle = y + (bars.length * BAR) / 2 + 4;
    parts.push(`<text x="${LEFT - 10}" y="${middle}" text-anchor="end">${xmlText(row.title)}</text>`);
    for (const [name, rate] of bars) {
      parts.push(bar(name, rate, { y, width: Math.max(1, shareOf(row, rate) * scale) }));
      y += BAR;
    }
    y += GAP;
  }
  const limit = (LEFT + scale).toFixed(1);
  parts.push(
    `<line x1="${limit}" x2="${limit}" y1="${TOP - 6}" y2="${y - GAP + 6}" class="limit"/>`,
    `<text x="${limit}" y="${TOP - 12}" text-anchor="middle" class="small">limit of the machine</text>`,
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}" role="img">`,
    `<title>${xmlText(title(measured))}</title>`,
    `<style>${STYLE}</style>`,
    `<text x="10" y="20" class="title">${xmlText(title(measured))}</text>`,
    ...legend(measured, rows),
    ...parts,
    '</svg>\n',
  ].join('\n');
}

const STYLE = [
  'text{font:12px system-ui,sans-serif;fill:#24292f}',
  '.title{font-size:14px;font-weight:600}',
  '.small{font-size:11px}',
  '.limit{stroke:#24292f;stroke-dasharray:3 3}',
  '@media(prefers-color-scheme:dark){text{fill:#d0d7de}.limit{stroke:#d0d7de}}',
].join('');

function shareOf({ limit }: Row, rate: number): number {
  return rate / limit.tokensPerSecond;
}

function bar(name: string, rate: number, { y, width }: { y: number; width: number }): string {
  const fill = COLOURS[name] ?? FIRST;
  const label = `${rate.toFixed(rate < 100 ? 1 : 0)} tokens/s`;
  return (
    `<rect x="${LEFT}" y="${y}" width="${width.toFixed(1)}" height="${BAR - 2}" fill="${fill}"/>` +
    `<text x="${(LEFT + width + 6).toFixed(1)}" y="${y + BAR - 4}" class="small">${label}</text>`
  );
}

function legend({ engines }: Measured, rows: Row[]): string[] {
  const shown = engines.filter(({ name }) => rows.some(({ rates }) => rates[name] !== undefined));
  return shown.map(({ name }, index) => {
    const x = 10 + index * 90;
    return (
      `<rect x="${x}" y="32" width="12" height="12" fill="${COLOURS[name] ?? FIRST}"/>` +
      `<text x="${x + 18}" y="42">${xmlText(name)}</text>`
    );
  });
}

function title({ processor, shape, date }: Measured): string {
  return `Llama ${shape.name.toUpperCase()}, bf16, ${processor.processors} × ${processor.model} (${date})`;
}

function xmlText(text: string): string {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
}
