import { readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { ensureBuilt, hasAll } from './built.mjs';
import { KUBERNETES, linkerFlags } from './cluster-tools.mjs';
import { cacheDir, keyOf, ROOT } from './files.mjs';
import { run } from './run.mjs';
import { ensurePackages, findGo, isOnPath } from './toolchain.mjs';

const SOURCE = join(ROOT, 'test/e2e/kubelet/assets');
const COMMANDS = ['kubelet', 'kube-proxy'];

/** A command of each Debian package; the network plugins are looked for where containerd is told to look. */
const PACKAGES = {
  containerd: 'containerd',
  runc: 'runc',
  iptables: 'iptables',
  conntrack: 'conntrack',
  buildah: 'buildah',
  debootstrap: 'debootstrap',
  ip: 'iproute2',
  unshare: 'util-linux',
  '/usr/lib/cni/bridge': 'containernetworking-plugins',
};

/** What a real node is made of, from Debian. */
export async function ensureNodePackages() {
  const missing = Object.entries(PACKAGES).flatMap(([command, name]) => (isOnPath(command) ? [] : [name]));
  await ensurePackages(missing, 'a real node needs containerd, runc, CNI plugins, buildah and debootstrap');
}

/** kubelet and kube-proxy. */
export async function ensureNodePrograms() {
  const toolchain = await findGo();
  await ensureBuilt(
    programsFolder(toolchain),
    COMMANDS,
    'building kubelet and kube-proxy',
    '4 min',
    async (folder) => {
      const args = ['build', '-trimpath', '-ldflags', linkerFlags(), '-o', join(folder, 'node-all'), '.'];
      await run(toolchain.go, args, { cwd: SOURCE });
      for (const name of COMMANDS) symlinkSync('node-all', join(folder, name));
    },
  );
}

/** Their folder; null where they are missing. */
export async function findNodePrograms() {
  const toolchain = await findGo().catch(() => null);
  const folder = toolchain && programsFolder(toolchain);
  return folder && hasAll(folder, COMMANDS) ? folder : null;
}

function programsFolder({ version }) {
  const sources = ['go.mod', 'go.sum', 'main.go'].map((name) => readFileSync(join(SOURCE, name)));
  const key = keyOf(...sources, version, KUBERNETES.version, process.platform, process.arch);
  return join(cacheDir(), 'node', key);
}
