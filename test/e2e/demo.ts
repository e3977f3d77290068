import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { readOptions } from '../support/options.ts';
import { GivenCluster } from './demo/given-cluster.ts';
import { howToMakeImages } from './demo/images.ts';
import { OwnCluster } from './demo/own-cluster.ts';
import type { Place } from './demo/place.ts';
import { Story } from './demo/story.ts';

const USAGE = `usage: npm run demo -- [options]
  --stay             keep it running after the story, to play with, until Ctrl-C

On a cluster that is there, instead of one that is made for the story:
  --context NAME     of the kubeconfig
  --kubeconfig FILE  default: as kubectl finds it
  --images PREFIX    of the three images that the cluster pulls: PREFIX/lorikeet-operator, -server and -parrot
  --tag TAG          theirs (default: demo)
  --keep             leave what it made in the cluster`;

const options = readOptions(USAGE, {
  options: {
    stay: { type: 'boolean', default: false },
    context: { type: 'string' },
    kubeconfig: { type: 'string' },
    images: { type: 'string' },
    tag: { type: 'string', default: 'demo' },
    keep: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

function findPlace(): Place {
  const { context, kubeconfig, images: prefix, tag, keep } = options;
  if (context !== undefined) {
    if (prefix !== undefined) return new GivenCluster({ context, kubeconfig, images: { prefix, tag }, keep });
    process.stderr.write(`${howToMakeImages(context, tag)}\n`);
    process.exit(2);
  }
  const setup = fileURLToPath(new URL('../support/setup.mjs', import.meta.url));
  const { status } = spawnSync(process.execPath, [setup, 'demo'], { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
  return new OwnCluster();
}

if (options.help) {
  process.stdout.write(`${USAGE}\n`);
  process.exit();
}
const story = new Story(findPlace());
const interrupted = Promise.withResolvers<'interrupted'>();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => interrupted.resolve('interrupted'));
}

const told = story.run().then(async () => {
  if (!options.stay) return 'told';
  await story.printPlaces();
  return await interrupted.promise;
});
// A story that is cut short by Ctrl-C fails somewhere later; that is not news.
told.catch(() => {});
try {
  const outcome = await Promise.race([told, interrupted.promise]);
  process.exitCode = outcome === 'told' || options.stay ? 0 : 130;
} catch (error) {
  process.stderr.write(`\nthe demo failed: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = 1;
} finally {
  await story.stop();
}
// What a cut-short story still waits for must not keep the process.
process.exit();
