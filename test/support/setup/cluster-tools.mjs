import { existsSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { ensureBuilt, hasAll } from './built.mjs';
import { cacheDir, keyOf, ROOT } from './files.mjs';
import { buildGo, ensureGo } from './go.mjs';
import { say } from './run.mjs';

/** A Go module of one binary that is each of these, by the name it is called under. */
const SOURCE = join(ROOT, 'test/cluster/assets');
const CONTROL_PLANE = ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubectl'];
const TOOLS = ['helm', 'versitygw', 'registry'];
const BINARY = 'cluster-tools';

/** Builds what is missing: all of them, or, where the user names a control plane, the others. */
export async function ensureClusterTools() {
  const wanted = wantedTools();
  if (hasAll(wanted.folder, wanted.names)) return;
  const go = await ensureGo();
  await ensureBuilt(wanted.folder, wanted.names, `building ${wanted.label}`, wanted.about, (folder) =>
    build(go, wanted, folder),
  );
}

/** What the tests read (test/support/tools.ts); null where a part is missing. */
export function findClusterTools() {
  const { folder, names, assets } = wantedTools();
  const isBuilt = hasAll(folder, names);
  const paths = TOOLS.map((name) => [name, isBuilt ? join(folder, name) : null]);
  return { assets: assets ?? (isBuilt ? folder : null), ...Object.fromEntries(paths) };
}

function wantedTools() {
  const assets = namedAssets();
  const sources = readdirSync(SOURCE)
    .filter((name) => /\.(go|mod|sum)$/.test(name))
    .map((name) => readFileSync(join(SOURCE, name)));
  const all = assets === null;
  return {
    assets,
    names: all ? [...CONTROL_PLANE, ...TOOLS] : TOOLS,
    label: all
      ? 'a Kubernetes control plane, helm, an S3 server and a registry'
      : 'helm, an S3 server and a registry',
    about: all ? '6 min' : '3 min',
    tags: all ? '' : 'without_control_plane',
    folder: join(
      cacheDir(),
      'cluster-tools',
      keyOf(...sources, process.platform, process.arch, all ? 'all' : 'without control plane'),
    ),
  };
}

function namedAssets() {
  const folder = process.env.KUBEBUILDER_ASSETS;
  if (!folder) return null;
  const missing = CONTROL_PLANE.filter((name) => !existsSync(join(folder, name)));
  if (missing.length === 0) return folder;
  say(`KUBEBUILDER_ASSETS=${folder} lacks ${missing.join(', ')}: using a control plane built here`);
  return null;
}

async function build(go, { names, tags }, folder) {
  await buildGo(go, { source: SOURCE, output: join(folder, BINARY), ldflags: linkerFlags(), tags });
  for (const name of names) symlinkSync(BINARY, join(folder, name));
}

/** With the version that Kubernetes' programs tell each other. */
export function linkerFlags() {
  const module = readFileSync(join(SOURCE, 'go.mod'), 'utf8');
  const [, version, major, minor] = module.match(/k8s\.io\/kubernetes (v(\d+)\.(\d+)\.\d+)/);
  const prefix = '-X k8s.io/component-base/version.git';
  return `-s -w ${prefix}Version=${version} ${prefix}Major=${major} ${prefix}Minor=${minor}`;
}
