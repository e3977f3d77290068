import { existsSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { ensureBuilt, hasAll } from './built.mjs';
import { cacheDir, keyOf } from './files.mjs';
import { run, say } from './run.mjs';
import { ASSETS_SOURCE, findGo } from './toolchain.mjs';

export const KUBERNETES = { version: 'v1.36.3', major: '1', minor: '36' };
export const COMMANDS = ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubectl'];

const GO_TOOLS = [
  { name: 'helm', package: 'helm.sh/helm/v4/cmd/helm', version: 'v4.3.1', about: '2 min' },
  {
    name: 'versitygw',
    package: 'github.com/versity/versitygw/cmd/versitygw',
    version: 'v1.8.0',
    about: '1 min',
  },
];
/** Of tests alone: the demo does without. */
const REGISTRY = {
  name: 'registry',
  package: 'github.com/distribution/distribution/v3/cmd/registry',
  version: 'v3.0.0',
  about: '3 min',
};

/** Folder of etcd, kube-apiserver, … : the one that the user names, else the one built here. */
export async function ensureControlPlane() {
  const named = namedAssets();
  if (named !== null) return;
  const toolchain = await findGo();
  await ensureBuilt(
    controlPlaneFolder(toolchain),
    COMMANDS,
    'building the Kubernetes control plane',
    '6 min',
    (folder) => buildControlPlane(toolchain.go, folder),
  );
}

export const ensureGoTools = () => ensureBuiltTools(GO_TOOLS);
export const ensureRegistry = () => ensureBuiltTools([REGISTRY]);

async function ensureBuiltTools(tools) {
  const toolchain = await findGo();
  for (const tool of tools) {
    await ensureBuilt(
      toolFolder(tool, toolchain),
      [tool.name],
      `building ${tool.name} ${tool.version}`,
      tool.about,
      (folder) =>
        run(toolchain.go, ['install', '-trimpath', '-ldflags', '-s -w', `${tool.package}@${tool.version}`], {
          env: { ...process.env, GOBIN: folder, GOFLAGS: '' },
        }),
    );
  }
}

/** What the tests read (test/support/tools.ts); null where a part is missing. */
export async function findClusterTools() {
  const named = namedAssets();
  const toolchain = await findGo().catch(() => null);
  const built = toolchain && controlPlaneFolder(toolchain);
  const found = { assets: named ?? (built && hasAll(built, COMMANDS) ? built : null) };
  for (const tool of [...GO_TOOLS, REGISTRY]) {
    const path = toolchain && join(toolFolder(tool, toolchain), tool.name);
    found[tool.name] = path && existsSync(path) ? path : null;
  }
  return found;
}

function namedAssets() {
  const folder = process.env.KUBEBUILDER_ASSETS;
  if (!folder) return null;
  const missing = COMMANDS.filter((name) => !existsSync(join(folder, name)));
  if (missing.length === 0) return folder;
  say(`KUBEBUILDER_ASSETS=${folder} lacks ${missing.join(', ')}: using a control plane built here`);
  return null;
}

function controlPlaneFolder({ version }) {
  const sources = ['go.mod', 'go.sum', 'main.go'].map((name) => readFileSync(join(ASSETS_SOURCE, name)));
  return join(
    cacheDir(),
    'control-plane',
    keyOf(...sources, version, KUBERNETES.version, process.platform, process.arch),
  );
}

function toolFolder(tool, { version }) {
  return join(
    cacheDir(),
    'tools',
    `${tool.name}-${tool.version}-${keyOf(version, process.platform, process.arch)}`,
  );
}

async function buildControlPlane(go, folder) {
  const binary = join(folder, 'kube-all');
  await run(go, ['build', '-trimpath', '-ldflags', linkerFlags(), '-o', binary, '.'], { cwd: ASSETS_SOURCE });
  for (const name of COMMANDS) symlinkSync('kube-all', join(folder, name));
}

/** With the version that Kubernetes' programs tell each other. */
export function linkerFlags() {
  const prefix = '-X k8s.io/component-base/version.git';
  const { version, major, minor } = KUBERNETES;
  return `-s -w ${prefix}Version=${version} ${prefix}Major=${major} ${prefix}Minor=${minor}`;
}
