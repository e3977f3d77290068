/**
 * Makes the kubectl plugin: build/kubectl-lora, one file that Node runs, the archive that krew installs, and its manifest.
 * `--url URL` is where the archive will be fetched from, `--out DIR` where all three go.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { rolldown } from 'rolldown';

const ROOT = resolve(import.meta.dirname, '../..');
const PLUGIN = 'kubectl-lora';
const URL_DEFAULT = 'https://releases.example/lorikeet/v{version}/kubectl-lora.tar.gz';
/** 60 MB, mostly classes for every kind of Kubernetes: only what is asked for by name may come along. */
const UNUSED = /client-node[\\/]dist[\\/]/;
/** Statements run before those of the modules below, which an older Node stumbles over. */
const BANNER = `#!/usr/bin/env node
{
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 22 || (major === 22 && minor < 15)) {
    console.error('error: kubectl lora needs Node 22.15 or newer on the PATH; this is ' + process.version);
    process.exit(1);
  }
}`;

const { url, out } = parseArgs({
  options: {
    url: { type: 'string', default: URL_DEFAULT },
    out: { type: 'string', default: join(ROOT, 'build') },
  },
}).values;

await bundle(join(out, PLUGIN));
const sha256 = await pack();
const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { version: string };
const template = await readFile(join(import.meta.dirname, 'krew.yaml'), 'utf8');
const manifest = template
  .replaceAll('{url}', url)
  .replaceAll('{version}', version)
  .replaceAll('{sha256}', sha256);
await writeFile(join(out, `${PLUGIN}.krew.yaml`), manifest);

async function bundle(file: string): Promise<void> {
  const bundled = await rolldown({
    input: join(import.meta.dirname, 'main.ts'),
    platform: 'node',
    treeshake: { moduleSideEffects: (id) => !UNUSED.test(id) },
  });
  await bundled.write({
    file,
    format: 'esm',
    codeSplitting: false,
    postBanner: BANNER,
    comments: { legal: true },
  });
  await bundled.close();
  await chmod(file, 0o755);
}

/** The same bytes for the same content. */
async function pack(): Promise<string> {
  const dir = join(out, `${PLUGIN}.archive`);
  await mkdir(dir, { recursive: true });
  await copyFile(join(out, PLUGIN), join(dir, PLUGIN));
  await copyFile(join(ROOT, 'LICENSE'), join(dir, 'LICENSE'));
  const archive = join(out, `${PLUGIN}.tar.gz`);
  const fixed = [
    '--sort=name',
    '--mtime=@0',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '--mode=u+rwX,go+rX',
  ];
  execFileSync('tar', [...fixed, '-I', 'gzip -n', '-cf', archive, '-C', dir, PLUGIN, 'LICENSE']);
  await rm(dir, { recursive: true });
  return createHash('sha256')
    .update(await readFile(archive))
    .digest('hex');
}
