import { join, resolve } from 'node:path';
import { generate } from '../../api/generate.ts';
import { ADAPTER } from './adapter.ts';
import { FLEET } from './fleet.ts';
import { modelOf } from './panel.ts';
import { TRAINER_SYNC } from './trainer-sync.ts';

const FOLDER = resolve(import.meta.dirname, '../../../charts/lorikeet/files/dashboards');

/** File → content, for every dashboard. */
export function dashboardFiles(): Map<string, string> {
  return new Map(
    [FLEET, ADAPTER, TRAINER_SYNC].map((dashboard) => [
      join(FOLDER, `${dashboard.file}.json`),
      `${JSON.stringify(modelOf(dashboard), null, 2)}\n`,
    ]),
  );
}

/** Writes the chart's dashboards; `--check` says how they differ, as that of operator/api does. */
if (import.meta.main) generate(dashboardFiles(), 'operator/telemetry/dashboards', process.argv.slice(2));
