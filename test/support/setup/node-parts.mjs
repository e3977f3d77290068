import { readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { ensureBuilt, hasAll } from './built.mjs';
import { linkerFlags } from './cluster-tools.mjs';
import { cacheDir, keyOf, ROOT } from './files.mjs';
import { buildGo, ensureGo } from './go.mjs';
import { ensurePackages, isOnPath } from './toolchain.mjs';

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
  await ensureBuilt(
    programsFolder(),
    COMMANDS,
    'building kubelet and kube-proxy',
    '4 min',
    async (folder) => {
      const output = join(folder, 'node-all');
      await buildGo(await ensureGo(), { source: SOURCE, output, ldflags: linkerFlags() });
      for (const name of COMMANDS) symlinkSync('node-all', join(folder, name));
    },
  );
}

/** Their folder; null where they are missing. */
export function findNodePrograms() {
  const folder = programsFolder();
  return hasAll(folder, COMMANDS) ? folder : null;
}

function programsFolder() {
  const sources = ['go.mod', 'go.sum', 'main.go'].map((name) => readFileSync(join(SOURCE, name)));
  const key = keyOf(...sources, process.platform, process.arch);
  return join(cacheDir(), 'node', key);
}
