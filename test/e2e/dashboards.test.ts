import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCommand } from '../cluster/command.ts';
import { chosenOf } from '../dashboards/chosen.ts';
import { type Expression, expressionsOf, filledIn } from '../dashboards/dashboard.ts';
import { ObservedWorld } from '../dashboards/observed.ts';
import type { Series } from '../dashboards/prometheus.ts';
import { eventually } from '../support/eventually.ts';
import { findTool } from '../support/tools.ts';
import { NAMESPACE, POOL, ROOT } from './world.ts';

/** Every expression of every panel, asked of a real Prometheus that scrapes real pods under load. */

const FOLDER = join(ROOT, 'charts/lorikeet/files/dashboards');
const DASHBOARDS = readdirSync(FOLDER).map((file): [string, string] => [
  file,
  readFileSync(join(FOLDER, file), 'utf8'),
]);
const RATE_SECONDS = 15;
/** In which every panel has data; the load goes on meanwhile. */
const PATIENCE = { timeoutMs: 90_000, everyMs: 1_000 };

const folder = findTool('prometheus');
if (folder === null)
  process.stdout.write('skipped: no Prometheus; node test/support/setup.mjs cluster says why\n');

let observed: ObservedWorld;

describe.skipIf(folder === null)('a Prometheus that scrapes what the monitors of both charts choose', () => {
  beforeAll(async () => {
    observed = await ObservedWorld.start({
      folder: folder as string,
      scrapeSeconds: 1,
      pushEveryMs: 500,
      clients: 4,
    });
    await observed.load();
  }, 240_000);

  afterAll(async () => {
    await observed?.stop();
  }, 60_000);

  it.each(DASHBOARDS)('has data for every panel of %s', async (_, json) => {
    const prefer = json.includes('"lorikeet-adapter"') ? { adapter: 'live' } : {};
    const all = expressionsOf(json);
    const chosen = await eventually('every variable has a value', PATIENCE, () =>
      chosenOf(json, observed.prometheus, prefer),
    );
    expect(chosen.namespace).toBe(json.includes('"lorikeet-adapter"') ? NAMESPACE : '.*');
    let empty: Expression[] = all;
    await eventually('every panel has data', PATIENCE, async () => {
      const found = await Promise.all(empty.map(async (asked) => hasData(await answer(asked, chosen))));
      empty = empty.filter((_, index) => !found[index]);
      return empty.length === 0 || undefined;
    }).catch(() => undefined);
    expect(empty).toEqual([]);
  });

  it.each(['server', 'operator'])(
    'has metrics of each %s that promtool finds nothing to say about',
    async (kind) => {
      const { world } = observed;
      const [pod] = kind === 'server' ? await world.servers() : await world.operators();
      const port = kind === 'server' ? 8000 : 9090;
      const text = await (await fetch(`http://${pod?.ip}:${port}/metrics`)).text();
      // What others call theirs is not ours to name.
      const own = text.split('\n').filter((line) => /^(# (HELP|TYPE) )?lorikeet_/.test(line));
      expect(own.length).toBeGreaterThan(50);
      await runCommand(join(folder as string, 'promtool'), ['check', 'metrics'], {
        input: `${own.join('\n')}\n`,
      });
    },
  );

  it('tells which revision each pod serves, and the step of the trainer', async () => {
    await eventually('both pods serve the same step', PATIENCE, async () => {
      const steps = await observed.prometheus.query('lorikeet_adapter_step{adapter="live"}');
      expect(steps.map(({ labels }) => labels.pool)).toEqual([POOL, POOL]);
      const [[, one] = [], [, other] = []] = steps.map(({ points }) => points[0] ?? []);
      return (one === other && Number(one) > 1) || undefined;
    });
  });
});

/** As Grafana asks: a course of the last minutes for a graph, a number for the rest. */
async function answer({ expr, isInstant }: Expression, chosen: Record<string, string>): Promise<Series[]> {
  const filled = filledIn(expr, { ...chosen, __rate_interval: `${RATE_SECONDS}s` });
  if (isInstant) return await observed.prometheus.query(filled);
  const endSeconds = Date.now() / 1000;
  return await observed.prometheus.queryRange(filled, {
    startSeconds: endSeconds - 120,
    endSeconds,
    stepSeconds: 5,
  });
}

function hasData(series: Series[]): boolean {
  return series.some(({ points }) => points.some(([, value]) => Number.isFinite(value)));
}
