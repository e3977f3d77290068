import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const REMOVE_ATTEMPTS_MAX = 50;
const REMOVE_PAUSE_MS = 100;

/** Where the cgroup hierarchies are mounted: one of version 2, or one per controller. */
async function hierarchies(): Promise<string[]> {
  const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n').map((line) => line.split(' '));
  return mounts.flatMap(([, path, type]) =>
    path && (type === 'cgroup' || type === 'cgroup2') ? [path] : [],
  );
}

/** The kubelet wants its root to be there, in every hierarchy. */
export async function makeCgroups(root: string): Promise<void> {
  for (const hierarchy of await hierarchies()) await mkdir(join(hierarchy, root), { recursive: true });
}

/** Nothing runs in them any more, or is about to end. */
export async function removeCgroups(root: string): Promise<void> {
  for (const hierarchy of await hierarchies()) {
    const path = join(hierarchy, root);
    for (let attempt = 1; existsSync(path); attempt++) {
      await removeTree(path).catch((error: unknown) => {
        if (attempt === REMOVE_ATTEMPTS_MAX) throw error;
      });
      if (existsSync(path)) await sleep(REMOVE_PAUSE_MS);
    }
    if (dirname(root) !== '/') await rmdir(dirname(path)).catch(() => {});
  }
}

async function removeTree(path: string): Promise<void> {
  for (const entry of await readdir(path, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeTree(join(path, entry.name));
  }
  await rmdir(path);
}

/** Every cgroup that there is, for a comparison of before and after. */
export async function listCgroups(): Promise<string[]> {
  const lists = await Promise.all((await hierarchies()).map(foldersUnder));
  return lists.flat();
}

async function foldersUnder(path: string): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  const folders = entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(path, name));
  return [...folders, ...(await Promise.all(folders.map(foldersUnder))).flat()];
}
