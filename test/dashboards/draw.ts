import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { runCommand } from '../cluster/command.ts';
import { ROOT } from '../e2e/world.ts';
import { toolPath } from '../support/tools.ts';
import { chosenOf } from './chosen.ts';
import { filledIn, parseDashboard } from './dashboard.ts';
import { ObservedWorld } from './observed.ts';
import { type Answered, heightOf, htmlOf, PAGE_WIDTH, type Page } from './page.ts';
import type { Prometheus, Range } from './prometheus.ts';

const FOLDER = join(ROOT, 'charts/lorikeet/files/dashboards');
const PICTURES = join(ROOT, 'charts/pictures');
const RECORDED = join(ROOT, 'build/dashboards.json');
const LOAD_MS = 240_000;
const RATE = '30s';
const STEP_SECONDS = 2;

/**
 * Draws charts/pictures: a world under load for four minutes, what Prometheus says of it, a page of each dashboard, Chromium.
 * Debian's chromium and pngquant must be there. `npm run dashboards`; with `-- --again` from what was recorded last, for changes of the drawing.
 */
async function main(flags: string[]): Promise<void> {
  const pages = flags.includes('--again') ? await recorded() : await record();
  await mkdir(PICTURES, { recursive: true });
  for (const [name, page] of Object.entries(pages)) {
    const picture = join(PICTURES, `${name}.png`);
    await draw(page, picture);
    process.stdout.write(`${picture}: ${Math.round((await stat(picture)).size / 1000)} kB\n`);
  }
}

type Pages = Record<string, Page>;

async function recorded(): Promise<Pages> {
  return JSON.parse(await readFile(RECORDED, 'utf8')) as Pages;
}

async function record(): Promise<Pages> {
  const observed = await ObservedWorld.start({
    folder: toolPath('prometheus'),
    scrapeSeconds: 1,
    pushEveryMs: 4_000,
    clients: 3,
    log: (line) => process.stdout.write(`${line}\n`),
  });
  try {
    const startSeconds = Date.now() / 1000;
    await observed.load();
    await sleep(LOAD_MS);
    const range = { startSeconds, endSeconds: Date.now() / 1000, stepSeconds: STEP_SECONDS };
    const pages: Pages = {};
    for (const file of await readdir(FOLDER)) {
      const name = file.replace(/\.json$/, '');
      const json = await readFile(join(FOLDER, file), 'utf8');
      pages[name] = await pageOf(json, observed.prometheus, range, name === 'adapter' ? 'live' : null);
    }
    await writeFile(RECORDED, JSON.stringify(pages));
    return pages;
  } finally {
    await observed.stop();
  }
}

async function pageOf(
  json: string,
  prometheus: Prometheus,
  range: Range,
  adapter: string | null,
): Promise<Page> {
  const { title, headings, panels } = parseDashboard(json);
  const chosen = await chosenOf(json, prometheus, adapter === null ? {} : { adapter });
  const answered: Answered[] = [];
  for (const panel of panels) {
    const answers = panel.targets.map(({ expr }) => {
      const filled = filledIn(expr, { ...chosen, __rate_interval: RATE });
      return panel.type === 'timeseries' ? prometheus.queryRange(filled, range) : prometheus.query(filled);
    });
    answered.push({ panel, answers: await Promise.all(answers) });
  }
  return { title, chosen, headings, answered, range };
}

async function draw(page: Page, picture: string): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-draw-'));
  try {
    const html = join(dir, 'page.html');
    await writeFile(html, htmlOf(page));
    const quiet = ['--disable-gpu', '--disable-background-networking', '--no-first-run', '--hide-scrollbars'];
    await runCommand('chromium', [
      '--headless',
      // Root has no sandbox; the page is our own and has no script.
      '--no-sandbox',
      ...quiet,
      `--user-data-dir=${join(dir, 'profile')}`,
      `--window-size=${PAGE_WIDTH},${heightOf(page)}`,
      `--screenshot=${picture}`,
      `file://${html}`,
    ]);
    await runCommand('pngquant', ['--force', '--output', picture, '--strip', '64', picture]);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

await main(process.argv.slice(2));
