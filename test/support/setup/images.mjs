import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { ensureBuilt, hasAll } from './built.mjs';
import { cacheDir, contentsUnder, keyOf, ROOT, withLock } from './files.mjs';
import { run } from './run.mjs';

const ARCHIVE = 'images.tar';
const REPOSITORY = 'localhost/lorikeet';
const SUITE = 'bookworm';
/** As in Debian's own image. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** Archives of other sources that are kept, for other clones and for going back. */
const KEPT_ARCHIVES_MAX = 2;
/** What .dockerignore lets into a build. */
const CONTEXT = [
  'LICENSE',
  'native',
  'operator',
  'package-lock.json',
  'package.json',
  'server',
  '.dockerignore',
];

/**
 * One archive with the images of our Dockerfiles and of a pod's sandbox. Layers that stay the same are kept beside it in a
 * store of buildah's that is ours alone: no image appears among the user's.
 */
export async function ensureImages() {
  const folder = archiveFolder();
  await ensureBuilt(folder, [ARCHIVE], 'building the images', '5 min', (temporary) =>
    withLock(join(imagesDir(), 'store.lock'), () => buildAll(join(temporary, ARCHIVE))),
  );
  forgetOldArchives(folder);
}

/** The archive; null where it is missing. */
export function findImages() {
  const folder = archiveFolder();
  return hasAll(folder, [ARCHIVE]) ? join(folder, ARCHIVE) : null;
}

async function buildAll(archive) {
  await ensureBase();
  const layout = `${archive}.layout`;
  for (const name of ['server', 'operator']) {
    await bud(name);
    await push(`${REPOSITORY}-${name}:dev`, layout);
  }
  await push(`${REPOSITORY}-pause:dev`, layout);
  await run('tar', ['-C', layout, '-cf', archive, '.']);
  rmSync(layout, { recursive: true });
}

async function bud(name) {
  // The machine's own certificates and npm settings: what reaches its registries reaches them from inside.
  const npmrc = join(homedir(), '.npmrc');
  const volumes = ['-v', '/etc/ssl/certs:/etc/ssl/certs:ro'];
  if (existsSync(npmrc)) volumes.push('-v', `${npmrc}:/root/.npmrc:ro`);
  await buildah([
    'bud',
    '--layers',
    '--isolation=chroot',
    '--net=host',
    ...volumes,
    `--build-arg=BASE=${REPOSITORY}-base:${SUITE}`,
    '-f',
    `${name}/Dockerfile`,
    '-t',
    `${REPOSITORY}-${name}:dev`,
    '.',
  ]);
}

/** An image of one layer, and of the same with a command that sleeps, which holds a pod's namespaces. */
async function ensureBase() {
  const names = [`${REPOSITORY}-base:${SUITE}`, `${REPOSITORY}-pause:dev`];
  const found = await Promise.all(
    names.map((name) =>
      buildah(['inspect', '--type=image', name]).then(
        () => true,
        () => false,
      ),
    ),
  );
  if (found.every(Boolean)) return;
  const root = join(imagesDir(), 'base');
  const tar = `${root}.tar`;
  try {
    rmSync(root, { recursive: true, force: true });
    await run('debootstrap', ['--variant=minbase', '--include=ca-certificates', SUITE, root]);
    for (const waste of ['var/cache/apt/archives', 'var/lib/apt/lists'])
      rmSync(join(root, waste), { recursive: true, force: true });
    await run('tar', ['-C', root, '-cf', tar, '.']);
    const container = (await buildah(['from', 'scratch'])).trim();
    await buildah(['add', '-q', container, tar, '/']);
    await buildah(['config', '--cmd', '["bash"]', '--env', `PATH=${PATH}`, container]);
    await buildah(['commit', '-q', container, names[0]]);
    await buildah(['config', '--cmd', '["sleep","infinity"]', container]);
    await buildah(['commit', '-q', '--rm', container, names[1]]);
  } finally {
    rmSync(root, { recursive: true, force: true });
    rmSync(tar, { force: true });
  }
}

function push(name, layout) {
  return buildah(['push', '-q', '--disable-compression', name, `oci:${layout}:${name}`]);
}

function buildah(args) {
  const store = ['--root', join(imagesDir(), 'store'), '--runroot', join(imagesDir(), 'run')];
  // It leaves a mount on its store, and more where it is killed: with mounts of its own they go with it, and it with us.
  const alone = ['--pdeathsig', 'KILL', 'unshare', '--mount', '--kill-child'];
  return run('setpriv', [...alone, 'buildah', ...store, ...args], { cwd: ROOT });
}

function forgetOldArchives(current) {
  const others = readdirSync(imagesDir())
    .filter((name) => /^[0-9a-f]{16}$/.test(name))
    .map((name) => join(imagesDir(), name))
    .filter((folder) => folder !== current)
    .sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs);
  for (const folder of others.slice(KEPT_ARCHIVES_MAX)) rmSync(folder, { recursive: true, force: true });
}

function archiveFolder() {
  const inputs = CONTEXT.flatMap((name) => {
    const path = join(ROOT, name);
    return statSync(path).isDirectory() ? contentsUnder(path, isInput) : [name, readFileSync(path)];
  });
  return join(imagesDir(), keyOf(...inputs, SUITE, process.arch));
}

const isInput = (name) => name !== 'README.md';

function imagesDir() {
  return join(cacheDir(), 'images');
}
