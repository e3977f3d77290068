import { z } from 'zod';

/** What a test or a drawing reads of a Grafana dashboard. */
const Datasource = z.object({ type: z.string(), uid: z.string() });

const Target = z.object({ expr: z.string(), legendFormat: z.string(), datasource: Datasource });

const Step = z.object({ color: z.string(), value: z.number().nullable() });

const Panel = z.object({
  type: z.enum(['timeseries', 'stat', 'table']),
  title: z.string(),
  description: z.string(),
  datasource: Datasource,
  gridPos: z.object({ x: z.number(), y: z.number(), w: z.number(), h: z.number() }),
  fieldConfig: z.object({
    defaults: z.object({
      unit: z.string(),
      thresholds: z.object({ steps: z.array(Step) }),
      custom: z.object({ stacking: z.object({ mode: z.string() }) }).optional(),
    }),
    overrides: z.array(
      z.object({
        matcher: z.object({ options: z.string() }),
        properties: z.tuple([z.object({ value: z.object({ fixedColor: z.string() }) })]),
      }),
    ),
  }),
  targets: z.array(Target),
  transformations: z
    .array(z.object({ options: z.object({ renameByName: z.record(z.string(), z.string()).optional() }) }))
    .optional(),
});
export type Panel = z.infer<typeof Panel>;

const Heading = z.object({
  type: z.literal('row'),
  title: z.string(),
  gridPos: z.object({ x: z.number(), y: z.number(), w: z.number(), h: z.number() }),
});
export type Heading = z.infer<typeof Heading>;

const Dashboard = z.object({
  uid: z.string(),
  title: z.string(),
  schemaVersion: z.number(),
  templating: z.object({
    list: z.array(
      z.object({ name: z.string(), type: z.string(), query: z.unknown(), allValue: z.string().optional() }),
    ),
  }),
  panels: z.array(z.union([Panel, Heading])),
});

export function parseDashboard(json: string) {
  const { panels: all, ...dashboard } = Dashboard.parse(JSON.parse(json));
  return {
    ...dashboard,
    panels: all.filter((panel) => panel.type !== 'row'),
    headings: all.filter((panel) => panel.type === 'row'),
  };
}

export interface Expression {
  panel: string;
  expr: string;
  /** A table or a single number: its value now, not its course. */
  isInstant: boolean;
}

export function expressionsOf(json: string): Expression[] {
  return parseDashboard(json).panels.flatMap(({ title, type, targets }) =>
    targets.map(({ expr }) => ({ panel: title, expr, isInstant: type !== 'timeseries' })),
  );
}

/** The expression as Grafana would send it. */
export function filledIn(expr: string, variables: Record<string, string>): string {
  return expr.replaceAll(/\$\{?(\w+)\}?/g, (whole, name: string) => variables[name] ?? whole);
}
