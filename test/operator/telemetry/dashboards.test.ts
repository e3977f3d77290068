import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { dashboardFiles } from '../../../operator/telemetry/dashboards/generate.ts';
import { modelOf, type Panel } from '../../../operator/telemetry/dashboards/panel.ts';
import { expressionsOf, parseDashboard } from '../../dashboards/dashboard.ts';

const ROOT = join(import.meta.dirname, '../../..');
const README = ['operator', 'server'].map((folder) => readFileSync(join(ROOT, folder, 'README.md'), 'utf8'));

/** The tables of metrics are compared with the code elsewhere. */
const METRICS = new Set(
  README.flatMap((text) => {
    const [, rows = ''] = /\| metric .*\n\|[- |]*\n((?:\|.*\n)*)/.exec(text) ?? [];
    return [...rows.matchAll(/^\| `(.*?)` \|/gm)].map(([, name = '']) => name);
  }).flatMap((name) => (/^(lorikeet|vllm:)/.test(name) ? [name] : [`lorikeet_operator_${name}`])),
);

/** Of a histogram, each of its three series. */
const isMetric = (name: string) => METRICS.has(name) || METRICS.has(name.replace(/_(bucket|sum|count)$/, ''));

describe.each([...dashboardFiles()])('%s', (file, expected) => {
  const { panels, uid, schemaVersion, templating } = parseDashboard(expected);

  it('is in the chart as the generator makes it', () => {
    expect(readFileSync(file, 'utf8')).toBe(expected);
  });

  it('has a name of its own, and lets people choose the data source', () => {
    expect(uid).toBe(`lorikeet-${basename(file, '.json')}`);
    expect(schemaVersion).toBeGreaterThanOrEqual(41);
    expect(templating.list[0]).toMatchObject({ name: 'datasource', type: 'datasource', query: 'prometheus' });
  });

  it('has a title, a unit and a description on each panel, and the chosen data source', () => {
    for (const { title, description, fieldConfig, datasource, targets } of panels) {
      expect({ title, description, unit: fieldConfig.defaults.unit }).toEqual({
        title: expect.stringMatching(/./),
        description: expect.stringMatching(/\.$/),
        unit: expect.stringMatching(/./),
      });
      for (const from of [datasource, ...targets.map((target) => target.datasource)]) {
        expect(from).toEqual({ type: 'prometheus', uid: '$datasource' });
      }
    }
  });

  it('asks for metrics that there are', () => {
    const asked = expressionsOf(expected).flatMap(
      ({ expr }) => expr.match(/\b(?:lorikeet_|vllm:)[a-z_]+\b(?!")/g) ?? [],
    );
    expect(asked.filter((name) => !isMetric(name))).toEqual([]);
    expect(asked.length).toBeGreaterThan(10);
  });

  it('uses no variable that it does not have', () => {
    const known = new Set(['datasource', '__rate_interval', ...templating.list.map(({ name }) => name)]);
    const used = [...expected.matchAll(/\$\{?([a-z_]+)/g)].map(([, name = '']) => name);
    expect(used.filter((name) => !known.has(name) && name !== '__all')).toEqual([]);
  });
});

it('the colours of series are by a part of their names, which Grafana wants between slashes', () => {
  const patterns = [...dashboardFiles().values()].flatMap((json) =>
    parseDashboard(json).panels.flatMap(({ fieldConfig }) =>
      fieldConfig.overrides.map(({ matcher }) => matcher.options),
    ),
  );
  expect(patterns).toContain('/^5/');
  expect(patterns.filter((pattern) => !/^\/.*\/$/.test(pattern))).toEqual([]);
});

describe('the colours of a panel', () => {
  const panel: Panel = { title: 't', unit: 'none', description: 'd', queries: [['up', 'up']], width: 24 };
  const stepsOf = (alarm?: Panel['alarm']) => {
    const rows = [{ title: 'r', height: 4, panels: [{ ...panel, ...(alarm && { alarm }) }] }];
    const model = modelOf({ file: 'f', title: 't', description: 'd', variables: [], rows });
    return parseDashboard(JSON.stringify(model)).panels[0]?.fieldConfig.defaults.thresholds.steps.map(
      ({ color, value }) => `${color} from ${value}`,
    );
  };

  it.each([
    [undefined, ['blue from null']],
    [{ bad: 2 }, ['green from null', 'red from 2']],
    [{ warn: 1, bad: 2 }, ['green from null', 'orange from 1', 'red from 2']],
    [{ bad: 1, falls: true }, ['red from null', 'green from 1']],
    [{ warn: 5, bad: 1, falls: true }, ['red from null', 'orange from 1', 'green from 5']],
  ])('of %j are those', (alarm, steps) => {
    expect(stepsOf(alarm)).toEqual(steps);
  });
});
