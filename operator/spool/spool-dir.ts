import { type Dirent, lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { DIGEST_PATTERN } from '../../server/contract/adapter-api.ts';
import { revisionDigest } from '../../server/contract/digest.ts';
import { CONFIG_BYTES_MAX } from '../../server/contract/format/adapter-config.ts';

export const Entry = z.object({
  config: z.unknown(),
  step: z.number().int().nonnegative().nullable(),
  size: z.number().int().nonnegative(),
  tensorsSha256: z.string().regex(/^[0-9a-f]{64}$/),
});
export type Entry = z.infer<typeof Entry>;

const META_BYTES_MAX = 2 * CONFIG_BYTES_MAX;

/** Only a digest that passed DIGEST_PATTERN becomes a path. */
export function pathsOf(root: string, digest: string): { folder: string; tensors: string; meta: string } {
  if (!DIGEST_PATTERN.test(digest))
    throw new TypeError('Expected a digest of the form sha256:<64 hex digits>');
  const hex = digest.slice('sha256:'.length);
  const folder = join(root, 'sha256', hex.slice(0, 2));
  const tensors = join(folder, hex.slice(2));
  return { folder, tensors, meta: `${tensors}.json` };
}

/** A folder of our own below `dir`, which may be a shared volume; throws if another account could have written in it. */
export function prepareSpoolDir(dir: string): string {
  const root = join(dir, 'v1');
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  for (const folder of [root, join(root, 'sha256')]) {
    try {
      mkdirSync(folder, { mode: 0o700 });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const stat = lstatSync(folder);
    if (!stat.isDirectory() || stat.uid !== process.getuid?.() || (stat.mode & 0o077) !== 0) {
      throw new Error(`Expected ${folder} to be a folder of this account with mode 0700`);
    }
  }
  rmSync(join(root, 'tmp'), { recursive: true, force: true });
  mkdirSync(join(root, 'tmp'), { mode: 0o700 });
  return root;
}

/** The revisions of an earlier process, least recently used first. Whatever is not one is removed. */
export function scanSpool(root: string): Map<string, Entry> {
  const found: { digest: string; entry: Entry; usedAt: number }[] = [];
  for (const prefix of readdirSync(join(root, 'sha256'), { withFileTypes: true })) {
    const folder = join(root, 'sha256', prefix.name);
    if (!prefix.isDirectory() || !/^[0-9a-f]{2}$/.test(prefix.name)) {
      rmSync(folder, { recursive: true, force: true });
      continue;
    }
    const files = readdirSync(folder, { withFileTypes: true });
    const kept = files
      .filter(({ name }) => name.endsWith('.json'))
      .flatMap((file) => readEntry(root, prefix.name, file));
    found.push(...kept);
    const names = new Set(kept.flatMap(({ digest }) => [`${digest.slice(9)}`, `${digest.slice(9)}.json`]));
    for (const { name } of files)
      if (!names.has(name)) rmSync(join(folder, name), { recursive: true, force: true });
  }
  found.sort((a, b) => a.usedAt - b.usedAt);
  return new Map(found.map(({ digest, entry }) => [digest, entry]));
}

function readEntry(
  root: string,
  prefix: string,
  file: Dirent,
): { digest: string; entry: Entry; usedAt: number }[] {
  const digest = `sha256:${prefix}${file.name.slice(0, -'.json'.length)}`;
  if (!file.isFile() || !DIGEST_PATTERN.test(digest)) return [];
  const { tensors, meta } = pathsOf(root, digest);
  try {
    const metaStat = lstatSync(meta);
    const tensorsStat = lstatSync(tensors);
    if (metaStat.size > META_BYTES_MAX || !tensorsStat.isFile()) return [];
    const entry = Entry.parse(JSON.parse(readFileSync(meta, 'utf8')));
    const consistent = revisionDigest(entry.config, entry.tensorsSha256) === digest;
    return consistent && tensorsStat.size === entry.size ? [{ digest, entry, usedAt: metaStat.mtimeMs }] : [];
  } catch {
    // Half a pair, or not ours: the caller removes it.
    return [];
  }
}

/** Both names of a revision, the one that makes it exist last. */
export function moveIntoPlace(root: string, digest: string, part: { tensors: string; meta: string }): void {
  const { folder, tensors, meta } = pathsOf(root, digest);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  renameSync(part.tensors, tensors);
  renameSync(part.meta, meta);
}
