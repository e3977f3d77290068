import { describe, expect, it } from 'vitest';
import { allRules, type Rules } from '../alerts/rules.ts';
import { CHARTS, helmTemplate, type Manifest } from './helm.ts';

const chart = CHARTS.operator;

type PrometheusRule = Manifest & { spec: Rules };

async function rendered(prometheusRule: object): Promise<PrometheusRule | undefined> {
  const manifests = await helmTemplate({ chart, values: { prometheusRule } });
  return manifests.find((manifest): manifest is PrometheusRule => manifest.kind === 'PrometheusRule');
}

async function rulesOf(values: object) {
  const manifest = await rendered({ enabled: true, ...values });
  return manifest?.spec.groups.flatMap(({ rules }) => rules);
}

describe("the operator chart's PrometheusRule", () => {
  it('is not there unless asked for', async () => {
    expect(await rendered({})).toBe(undefined);
  });

  it('has the alerts of the file, as they stand there', async () => {
    expect(await rulesOf({})).toEqual(allRules());
  });

  it('carries the labels that a Prometheus selects by', async () => {
    const manifest = await rendered({ enabled: true, labels: { release: 'monitoring' } });
    expect(manifest?.metadata.labels).toMatchObject({ release: 'monitoring' });
  });

  it('lets each alert be changed, and changes no other', async () => {
    const changed = (index: number) => index % 2 === 0;
    const own = (index: number) => ({ threshold: index / 8, for: `${index + 100}m`, severity: 'info' });
    const wanted = allRules().map((rule, index) => {
      if (!changed(index)) return rule;
      const { threshold, for: lasting, severity } = own(index);
      const expr = rule.expr.replace(/[0-9.]+$/, String(threshold));
      return { ...rule, expr, for: lasting, labels: { severity } };
    });
    const alerts = allRules().flatMap(({ alert }, index) => (changed(index) ? [[alert, own(index)]] : []));
    expect(await rulesOf({ alerts: Object.fromEntries(alerts) })).toEqual(wanted);
  });

  it('leaves an alert out, and a group without any', async () => {
    const pushes = allRules().filter(({ alert }) => alert.startsWith('LorikeetPush'));
    const alerts = Object.fromEntries(pushes.map(({ alert }) => [alert, { enabled: false }]));
    const groups = (await rendered({ enabled: true, alerts }))?.spec.groups ?? [];
    expect(groups.map(({ name }) => name)).not.toContain('lorikeet-pushes');
    expect(groups.flatMap(({ rules }) => rules)).toHaveLength(allRules().length - pushes.length);
  });

  it('points to where the runbook is kept', async () => {
    const rules = await rulesOf({ runbookUrl: 'https://wiki.example/lorikeet?page=1' });
    expect(rules?.map(({ annotations }) => annotations.runbook_url)).toEqual(
      allRules().map(({ alert }) => `https://wiki.example/lorikeet?page=1#${alert.toLowerCase()}`),
    );
  });

  it.each([
    ['an alert that there is not', { LorikeetNoLaeder: {} }, /no alert is named LorikeetNoLaeder/],
    ['a time that is none', { LorikeetNoLeader: { for: 'soon' } }, /for/],
    ['a threshold that is none', { LorikeetNoLeader: { threshold: '1' } }, /threshold/],
  ])('refuses %s', async (_, alerts, words) => {
    await expect(rendered({ enabled: true, alerts })).rejects.toThrow(words);
  });
});
