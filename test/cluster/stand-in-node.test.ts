import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { type ControlPlane, startControlPlane } from './control-plane.ts';
import type { ContainerState, Terminated } from './node/container.ts';
import type { Pod } from './node/manifest.ts';
import { type StandInNode, startStandInNode } from './stand-in-node.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const IMAGES = {
  'tiny:dev': { entrypoint: [process.execPath, 'test/cluster/fixtures/tiny-server.ts'], cwd: ROOT },
  'shell:dev': { entrypoint: ['/bin/sh', '-c'], cwd: ROOT },
};
const PATIENCE = { timeoutMs: 30_000 };

interface LivePod extends Omit<Pod, 'status'> {
  status: {
    phase: string;
    podIP: string;
    conditions: { type: string; status: string }[];
    containerStatuses: {
      ready: boolean;
      restartCount: number;
      state: Partial<Record<keyof ContainerState, unknown>> & {
        terminated?: Terminated;
        waiting?: { reason: string };
      };
      lastState: { terminated?: Terminated };
    }[];
  };
}

let plane: ControlPlane;
let node: StandInNode;

beforeAll(async () => {
  plane = await startControlPlane({ controllers: true });
  const backOff = { baseMs: 1_500, maxMs: 3_000 };
  node = await startStandInNode({ kubeconfig: plane.kubeconfig, images: IMAGES, backOff, refreshMs: 500 });
});

afterAll(async () => {
  await node.stop();
  await plane.stop();
});

async function apply(...objects: object[]): Promise<void> {
  const list = { apiVersion: 'v1', kind: 'List', items: objects };
  await plane.kubectl(['apply', '-f', '-'], JSON.stringify(list));
}

function podOf(name: string, container: object, spec: object = {}): object {
  const environment = [
    { name: 'HOST', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
    { name: 'POD_NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
  ];
  const { env = [], ...rest } = container as { env?: object[] };
  const containers = [{ name: 'main', image: 'tiny:dev', env: [...environment, ...env], ...rest }];
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels: { app: name } },
    spec: { containers, ...spec },
  };
}

async function getPod(name: string): Promise<LivePod> {
  return JSON.parse(await plane.kubectl(['get', 'pod', name, '-o', 'json'])) as LivePod;
}

function podWhere(name: string, what: string, isSo: (pod: LivePod) => boolean | undefined): Promise<LivePod> {
  return eventually(`pod ${name} ${what}`, PATIENCE, async () => {
    const pod = await getPod(name);
    return isSo(pod) ? pod : undefined;
  });
}

const isReady = ({ status }: LivePod) =>
  status.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True');
const readyPod = (name: string) => podWhere(name, 'is ready', isReady);

async function ask(pod: LivePod, path: string): Promise<string> {
  return await (await fetch(`http://${pod.status.podIP}:8080${path}`)).text();
}

it('makes a Deployment available, each pod on an address of its own', async () => {
  const { spec, metadata } = podOf('web', {
    readinessProbe: { httpGet: { path: '/ready', port: 8080 }, periodSeconds: 1 },
  }) as {
    spec: object;
    metadata: { labels: object };
  };
  const template = { metadata: { labels: metadata.labels }, spec };
  await apply({
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web' },
    spec: { replicas: 2, selector: { matchLabels: metadata.labels }, template },
  });
  await plane.kubectl(['rollout', 'status', 'deployment/web', '--timeout=40s']);
  const { items } = JSON.parse(await plane.kubectl(['get', 'pods', '-l', 'app=web', '-o', 'json'])) as {
    items: LivePod[];
  };
  const names = await Promise.all(items.map(async (pod) => JSON.parse(await ask(pod, '/')).env.POD_NAME));
  expect(new Set(names)).toEqual(new Set(items.map(({ metadata }) => metadata.name)));
  expect(new Set(items.map(({ status }) => status.podIP)).size).toBe(2);
  await plane.kubectl(['delete', 'deployment/web', '--cascade=foreground']);
});

it('runs what the image brings though a mount covers its folder on this machine', async () => {
  const volumeMounts = [{ name: 'cover', mountPath: dirname(process.execPath) }];
  const readinessProbe = { httpGet: { path: '/ready', port: 8080 }, periodSeconds: 1 };
  await apply(
    podOf('covered', { volumeMounts, readinessProbe }, { volumes: [{ name: 'cover', emptyDir: {} }] }),
  );
  await readyPod('covered');
  await plane.kubectl(['delete', 'pod', 'covered', '--grace-period=0', '--force']);
});

it('reports a failing readiness probe, and restarts a container whose liveness probe fails', async () => {
  const probe = { periodSeconds: 1, failureThreshold: 1 };
  await apply(
    podOf('probed', {
      readinessProbe: { httpGet: { path: '/ready', port: 8080 }, ...probe },
      startupProbe: { httpGet: { path: '/live', port: 8080 }, periodSeconds: 1, failureThreshold: 30 },
      livenessProbe: { httpGet: { path: '/live', port: 8080 }, ...probe },
    }),
  );
  const pod = await readyPod('probed');
  await ask(pod, '/set?ready=false');
  await podWhere(
    'probed',
    'is not ready',
    (now) => !isReady(now) && now.status.containerStatuses[0]?.restartCount === 0,
  );
  await ask(pod, '/set?ready=true');
  await readyPod('probed');
  await ask(pod, '/set?live=false');
  await podWhere(
    'probed',
    'was restarted',
    (now) => now.status.containerStatuses[0]?.restartCount === 1 && isReady(now),
  );
});

it('restarts what ends: at once, then with back-off; restartCount, lastState and exit codes tell', async () => {
  await apply(podOf('crashing', {}));
  const pod = await readyPod('crashing');
  await eventually('it serves', PATIENCE, () => ask(pod, '/'));
  await ask(pod, '/exit?code=3').catch(() => {});
  const once = await podWhere(
    'crashing',
    'runs again',
    (now) => now.status.containerStatuses[0]?.restartCount === 1 && isReady(now),
  );
  expect(once.status.containerStatuses[0]?.lastState.terminated).toMatchObject({
    exitCode: 3,
    reason: 'Error',
  });
  await eventually('it serves again', PATIENCE, () => ask(pod, '/'));
  node.kill('default', 'crashing');
  const waiting = await podWhere('crashing', 'is in back-off', (now) => {
    return now.status.containerStatuses[0]?.state.waiting?.reason === 'CrashLoopBackOff';
  });
  expect(waiting.status.containerStatuses[0]?.lastState.terminated).toMatchObject({
    exitCode: 137,
    signal: 9,
  });
  await podWhere(
    'crashing',
    'runs a third time',
    (now) => now.status.containerStatuses[0]?.restartCount === 2 && isReady(now),
  );
});

it('runs to completion what shall not be restarted, init containers first', async () => {
  const volumes = [{ name: 'shared', emptyDir: {} }];
  const volumeMounts = [{ name: 'shared', mountPath: '/shared' }];
  const shell = { image: 'shell:dev', volumeMounts };
  await apply(
    podOf(
      'job',
      { ...shell, args: ['cat /shared/word; exit 4'] },
      {
        restartPolicy: 'Never',
        volumes,
        initContainers: [{ ...shell, name: 'first', args: ['echo parrot > /shared/word'] }],
      },
    ),
  );
  const pod = await podWhere('job', 'is over', ({ status }) => status.phase === 'Failed');
  expect(pod.status.containerStatuses[0]?.state.terminated?.exitCode).toBe(4);
  expect(await node.logs('default', 'job')).toBe('parrot\n');
});

it('gives SIGTERM and the grace, then SIGKILL, then removes the object', async () => {
  await apply(
    podOf('polite', { env: [{ name: 'LINGER_MS', value: '700' }] }),
    podOf('stubborn', { env: [{ name: 'LINGER_MS', value: '60000' }] }),
  );
  const pods = await Promise.all([readyPod('polite'), readyPod('stubborn')]);
  await Promise.all(pods.map((pod) => eventually('it serves', PATIENCE, () => ask(pod, '/'))));
  const started = performance.now();
  await plane.kubectl(['delete', 'pod', 'polite', 'stubborn', '--grace-period=2']);
  const tookMs = performance.now() - started;
  expect(tookMs).toBeGreaterThan(2_000);
  expect(tookMs).toBeLessThan(20_000);
  for (const name of ['polite', 'stubborn'])
    expect(await node.logs('default', name, 'main')).toContain('asked to end');
  await expect(fetch(`http://${pods[1].status.podIP}:8080/`)).rejects.toThrow();
});

it('gives a container what its manifest names and nothing else', async () => {
  process.env.LORIKEET_LEAK = 'of the host';
  await apply(
    { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'keys' }, stringData: { token: 's3cret' } },
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'settings' }, data: { colour: 'green' } },
    podOf(
      'informed',
      {
        args: [
          '--at=$(HOST):8080',
          '--token-file=/etc/keys/token',
          '--literal=$$(HOST)',
          '--unknown=$(NOPE)',
        ],
        env: [
          { name: 'COLOUR', valueFrom: { configMapKeyRef: { name: 'settings', key: 'colour' } } },
          { name: 'TOKEN', valueFrom: { secretKeyRef: { name: 'keys', key: 'token' } } },
          { name: 'NODE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
          { name: 'BOTH', value: '$(COLOUR)-$(NODE)' },
        ],
        volumeMounts: [{ name: 'keys', mountPath: '/etc/keys', readOnly: true }],
      },
      {
        volumes: [{ name: 'keys', secret: { secretName: 'keys', defaultMode: 0o400 } }],
        automountServiceAccountToken: false,
      },
    ),
  );
  const pod = await readyPod('informed');
  const { args, env } = JSON.parse(await eventually('it serves', PATIENCE, () => ask(pod, '/')));
  expect(env).toMatchObject({
    COLOUR: 'green',
    TOKEN: 's3cret',
    BOTH: 'green-stand-in',
    HOST: pod.status.podIP,
  });
  expect(env.LORIKEET_LEAK).toBeUndefined();
  expect(env.KUBECONFIG).toBeUndefined();
  expect([args[0], args[2], args[3]]).toEqual([
    `--at=${pod.status.podIP}:8080`,
    '--literal=$(HOST)',
    '--unknown=$(NOPE)',
  ]);
  const file = args[1].replace('--token-file=', '');
  expect(await ask(pod, `/file?path=${file}`)).toBe('s3cret');
  await plane.kubectl([
    'patch',
    'secret',
    'keys',
    '-p',
    JSON.stringify({ stringData: { token: 'rotated' } }),
  ]);
  await eventually('the mounted secret is renewed', PATIENCE, async () => {
    return (await ask(pod, `/file?path=${file}`)) === 'rotated' ? true : undefined;
  });
});

it('waits for a Secret that is not there yet', async () => {
  const reference = { secretKeyRef: { name: 'late', key: 'word' } };
  await apply(podOf('early', { env: [{ name: 'WORD', valueFrom: reference }] }));
  await podWhere('early', 'waits', ({ status }) => {
    return status.containerStatuses?.[0]?.state.waiting?.reason === 'CreateContainerConfigError';
  });
  await apply({ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'late' }, stringData: { word: 'now' } });
  await readyPod('early');
});

it('gives a pod the rights of its ServiceAccount and no more, and tokens for the audience it names', async () => {
  await plane.kubectl(['create', 'serviceaccount', 'reader']);
  await plane.kubectl([
    'create',
    'role',
    'read-settings',
    '--verb=get',
    '--resource=configmaps',
    '--resource-name=open',
  ]);
  await plane.kubectl([
    'create',
    'rolebinding',
    'reader',
    '--role=read-settings',
    '--serviceaccount=default:reader',
  ]);
  const token = {
    serviceAccountToken: { path: 'push-token', audience: 'lorikeet-push', expirationSeconds: 600 },
  };
  await apply(
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'open' } },
    podOf(
      'account',
      { volumeMounts: [{ name: 'push', mountPath: '/var/run/push' }], args: ['/var/run/push/push-token'] },
      { serviceAccountName: 'reader', volumes: [{ name: 'push', projected: { sources: [token] } }] },
    ),
  );
  const pod = await readyPod('account');
  const { env, args } = JSON.parse(await eventually('it serves', PATIENCE, () => ask(pod, '/')));
  const kubeconfig = ['--kubeconfig', env.KUBECONFIG];
  expect(await plane.kubectl([...kubeconfig, 'get', 'configmap', 'open', '-o', 'name'])).toBe(
    'configmap/open\n',
  );
  await expect(plane.kubectl([...kubeconfig, 'get', 'configmap', 'settings'])).rejects.toThrow('Forbidden');
  const review = {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenReview',
    spec: { token: await ask(pod, `/file?path=${args[0]}`), audiences: ['lorikeet-push'] },
  };
  const { status } = JSON.parse(
    await plane.kubectl(['create', '-f', '-', '-o', 'json'], JSON.stringify(review)),
  );
  expect(status).toMatchObject({
    authenticated: true,
    user: { username: 'system:serviceaccount:default:reader' },
  });
});

it('hangs a paused pod: its probes see it, and it goes on where it was', async () => {
  const readinessProbe = { httpGet: { path: '/ready', port: 8080 }, periodSeconds: 1, failureThreshold: 1 };
  await apply(podOf('sleepy', { readinessProbe }));
  const pod = await readyPod('sleepy');
  const { pid } = JSON.parse(await ask(pod, '/'));
  node.pause('default', 'sleepy');
  await podWhere('sleepy', 'is not ready', (now) => !isReady(now));
  node.resume('default', 'sleepy');
  await readyPod('sleepy');
  expect(JSON.parse(await ask(pod, '/')).pid).toBe(pid);
});

it('links a claim to the folder of its volume', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'lorikeet-volume-'));
  await writeFile(join(folder, 'config.json'), '{"base":"parrot"}');
  const claim = {
    accessModes: ['ReadOnlyMany'],
    resources: { requests: { storage: '1Mi' } },
    storageClassName: '',
  };
  await apply(
    {
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name: 'model' },
      spec: { accessModes: ['ReadOnlyMany'], capacity: { storage: '1Mi' }, hostPath: { path: folder } },
    },
    {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name: 'model' },
      spec: { ...claim, volumeName: 'model' },
    },
    podOf(
      'mounted',
      { volumeMounts: [{ name: 'model', mountPath: '/models' }], args: ['--model=/models/config.json'] },
      { volumes: [{ name: 'model', persistentVolumeClaim: { claimName: 'model' } }] },
    ),
  );
  const pod = await readyPod('mounted');
  const { args } = JSON.parse(await eventually('it serves', PATIENCE, () => ask(pod, '/')));
  expect(await ask(pod, `/file?path=${args[0].replace('--model=', '')}`)).toBe('{"base":"parrot"}');
  await rm(folder, { recursive: true });
});

it('leaves nothing behind: no process, no port, no file', async () => {
  const other = await startStandInNode({ kubeconfig: plane.kubeconfig, images: IMAGES, name: 'second' });
  await apply(podOf('brief', {}, { nodeName: 'second' }));
  const pod = await readyPod('brief');
  const { pid, env } = JSON.parse(await eventually('it serves', PATIENCE, () => ask(pod, '/')));
  expect(existsSync(env.HOME)).toBe(true);
  await other.stop();
  expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  expect(existsSync(env.HOME)).toBe(false);
  await expect(ask(pod, '/')).rejects.toThrow();
});
