import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type ControlPlane, startControlPlane } from '../cluster/control-plane.ts';
import { type StandInNode, startStandInNode } from '../cluster/stand-in-node.ts';
import { toolPath } from '../support/tools.ts';
import { PARROT, ROOT } from './world.ts';

const NODE = join(ROOT, 'node_modules/.bin/node');
const IMAGES = 'registry.test/demo';

let plane: ControlPlane;
let node: StandInNode;
let home: string;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'lorikeet-demo-home-'));
  plane = await startControlPlane({ controllers: true });
  const image = (program: string) => ({ entrypoint: [NODE, program], cwd: ROOT });
  node = await startStandInNode({
    kubeconfig: plane.kubeconfig,
    images: {
      [`${IMAGES}/lorikeet-operator:demo`]: image('operator/main.ts'),
      [`${IMAGES}/lorikeet-server:demo`]: image('server/main.ts'),
      [`${IMAGES}/lorikeet-parrot:demo`]: { entrypoint: [], cwd: PARROT },
    },
    backOff: { baseMs: 500, maxMs: 5_000 },
    refreshMs: 2_000,
  });
});

afterAll(async () => {
  await node?.stop();
  await plane?.stop();
  await rm(home, { recursive: true, force: true });
});

function demo(...args: string[]): Promise<{ code: unknown; stdout: string; stderr: string }> {
  const command = ['test/e2e/demo.ts', '--context', 'test', '--kubeconfig', plane.kubeconfig, ...args];
  // As a user has them, who has a cluster.
  const path = [toolPath('assets'), dirname(toolPath('helm')), process.env.PATH].join(delimiter);
  const env = { ...process.env, HOME: home, PATH: path };
  return new Promise((resolve) => {
    execFile(NODE, command, { cwd: ROOT, env }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : error.code, stdout, stderr });
    });
  });
}

/** Everything of the cluster that a story could leave. */
async function left(): Promise<string[]> {
  const kinds = 'namespaces,crds,clusterroles,clusterrolebindings,persistentvolumes';
  const names = await plane.kubectl(['get', kinds, '-o', 'name']);
  return names.split('\n').filter((name) => name.includes('lorikeet'));
}

it('says which images to build and push, and makes nothing, where none are named', async () => {
  const { code, stderr } = await demo();
  expect(code).toBe(2);
  for (const name of ['operator', 'server', 'parrot'])
    expect(stderr).toMatch(new RegExp(`docker build -t \\$PREFIX/lorikeet-${name}:demo .* && docker push `));
  expect(stderr).toContain('npm run demo -- --context test --images $PREFIX');
  expect(await left()).toEqual([]);
});

it('tells the whole story and leaves nothing', async () => {
  const { code, stdout, stderr } = await demo('--images', IMAGES);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toContain('Every step did what it says');
  expect(await left()).toEqual([]);
}, 600_000);

it('leaves what somebody else has made', async () => {
  const name = 'lorikeet-demo';
  await plane.kubectl(['create', 'namespace', name]);
  const { code, stderr } = await demo('--images', IMAGES);
  expect(code).toBe(1);
  expect(stderr).toContain(`the cluster has namespace/${name} already`);
  expect(await left()).toEqual([`namespace/${name}`]);
});
