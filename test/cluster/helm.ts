import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse, parseAllDocuments } from 'yaml';
import { toolPath } from '../support/tools.ts';
import { runCommand } from './command.ts';

export const CHARTS = {
  operator: fileURLToPath(new URL('../../charts/lorikeet', import.meta.url)),
  server: fileURLToPath(new URL('../../charts/lorikeet-server', import.meta.url)),
};

export interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: {
    name: string;
    namespace?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
    generation?: number;
    resourceVersion?: string;
  };
  [field: string]: unknown;
}

export interface Release {
  chart: string;
  values?: object;
  name?: string;
  namespace?: string;
}

export interface HelmOptions {
  /** Read where the arguments say `-f -`. */
  values?: object | undefined;
  kubeconfig?: string;
}

/** Runs helm without the user's own settings. */
export function helm(args: string[], { values = {}, kubeconfig }: HelmOptions = {}): Promise<string> {
  const home = kubeconfig === undefined ? '/nonexistent' : join(dirname(kubeconfig), 'helm');
  const env: NodeJS.ProcessEnv = { PATH: process.env.PATH, HOME: home };
  if (kubeconfig !== undefined) env.KUBECONFIG = kubeconfig;
  return runCommand(toolPath('helm'), args, { input: JSON.stringify(values), env });
}

/** What a release would consist of. */
export async function helmTemplate({
  chart,
  values,
  name = 'lorikeet',
  namespace = 'test',
}: Release): Promise<Manifest[]> {
  const text = await helm(['template', name, chart, '-n', namespace, '-f', '-'], { values });
  return parseAllDocuments(text, { version: '1.1' })
    .map((document) => document.toJS() as Manifest | null)
    .filter((manifest) => manifest !== null);
}

/** The part of a pod that the server chart's notes give to who installs it. */
export async function bridgeOfNotes(values: object): Promise<Record<string, unknown>> {
  const told = await helm(
    ['install', 'lorikeet', CHARTS.server, '--dry-run=client', '-n', 'test', '-f', '-'],
    {
      values,
    },
  );
  return parse(told.slice(told.indexOf('  spec:\n    initContainers:'))).spec;
}

/** Installs or upgrades a release, as a user would. */
export function helmInstall(
  kubeconfig: string,
  { chart, values, name = 'lorikeet', namespace = 'test' }: Release,
): Promise<string> {
  return helm(['upgrade', '--install', name, chart, '-n', namespace, '--create-namespace', '-f', '-'], {
    values,
    kubeconfig,
  });
}
