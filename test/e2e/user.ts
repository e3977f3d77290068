import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NAMESPACE, type World } from './world.ts';

/** A kubeconfig, in `dir`, of a ServiceAccount that has one ClusterRole in the pool's namespace. */
export async function kubeconfigOf(world: World, role: string, dir: string): Promise<string> {
  const name = `user-${role}`;
  await world.apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace: NAMESPACE } });
  await world.apply({
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'RoleBinding',
    metadata: { name, namespace: NAMESPACE },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
    subjects: [{ kind: 'ServiceAccount', name, namespace: NAMESPACE }],
  });
  const token = (await world.plane.kubectl(['create', 'token', name, '-n', NAMESPACE])).trim();
  const config = JSON.parse(await readFile(world.plane.kubeconfig, 'utf8'));
  const path = join(dir, `${name}.kubeconfig`);
  await writeFile(path, JSON.stringify({ ...config, users: [{ name: 'admin', user: { token } }] }), {
    mode: 0o600,
  });
  return path;
}
