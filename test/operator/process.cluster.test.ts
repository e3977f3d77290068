import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ControlPlane, startControlPlane } from '../cluster/control-plane.ts';
import { type RunningProcess, startProcess } from '../cluster/process.ts';
import { digestOf, goodAdapter } from '../support/adapter-files.ts';
import { eventually } from '../support/eventually.ts';
import { POD_TOKEN, ScriptedPod } from '../support/pod/scripted-pod.ts';
import { kubePod, NAMESPACE, pushedAdapter, serverPool } from './adapter/objects.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const NODE = join(ROOT, 'node_modules/.bin/node');
const PATIENCE = { timeoutMs: 20_000 };
/** A lease that could not be given back runs out after fifteen seconds. */
const SUCCESSION = { timeoutMs: 40_000 };
const GRACE_MS = 10_000;

/** Starts an etcd, an API server and operators as processes: about ten seconds. */
describe('the operator as a process', () => {
  let plane: ControlPlane;
  let pods: ScriptedPod[];
  let dir: string;
  const operators: RunningProcess[] = [];

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
    plane = await startControlPlane();
    const first = await ScriptedPod.start({ host: '127.0.4.1' });
    pods = [first, await ScriptedPod.start({ host: '127.0.4.2', port: first.port })];
    await kubectl('apply', '--server-side', '-f', join(ROOT, 'crds'));
    await kubectl('wait', '--for=condition=Established', '--timeout=30s', 'crd', '--all');
    await kubectl('create', 'namespace', NAMESPACE);
    for (const account of ['default', 'trainer']) await kubectl('-n', NAMESPACE, 'create', 'sa', account);
    await kubectl(
      '-n',
      NAMESPACE,
      'create',
      'secret',
      'generic',
      'admin',
      `--from-literal=token=${POD_TOKEN}`,
    );
    const rights = ['--verb=update', '--resource=loraadapters.lorikeet.dev/tensors'];
    await kubectl('-n', NAMESPACE, 'create', 'role', 'pusher', ...rights);
    const binding = ['--role=pusher', `--serviceaccount=${NAMESPACE}:trainer`];
    await kubectl('-n', NAMESPACE, 'create', 'rolebinding', 'pusher', ...binding);
    for (const [index, { host }] of pods.entries()) await createPod(`pod-${index}`, host);
    await apply(serverPool(first.port), pushedAdapter('policy', { metadata: { finalizers: [] } }));
  });

  afterAll(async () => {
    for (const operator of operators) await operator.stop(GRACE_MS);
    await Promise.all((pods ?? []).map((pod) => pod.stop()));
    await plane?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  const kubectl = (...args: string[]) => plane.kubectl(args);
  const lora = (path: string) => kubectl('-n', NAMESPACE, 'get', 'lora', 'policy', '-o', `jsonpath=${path}`);

  /** As people write it: the API server gives what they leave out. */
  async function apply(...objects: { metadata: object }[]): Promise<void> {
    for (const object of objects) {
      const {
        uid: _uid,
        resourceVersion: _version,
        ...metadata
      } = object.metadata as Record<string, unknown>;
      await plane.kubectl(['apply', '-f', '-'], JSON.stringify({ ...object, metadata }));
    }
  }

  async function createPod(name: string, host: string): Promise<void> {
    const { status, ...pod } = kubePod(name, host);
    await apply({ ...pod, spec: { containers: [{ name: 'server', image: 'none' }] } } as {
      metadata: object;
    });
    const patch = JSON.stringify({ status: { ...status, podIPs: [{ ip: host }] } });
    await kubectl('-n', NAMESPACE, 'patch', 'pod', name, '--subresource=status', '--type=merge', '-p', patch);
  }

  async function startOperator(
    identity: string,
  ): Promise<{ process: RunningProcess; push: string; metrics: string }> {
    const logFile = join(dir, `${identity}.log`);
    const hosts = [
      '--push-host',
      '127.0.0.1',
      '--push-port',
      '0',
      '--metrics-host',
      '127.0.0.1',
      '--metrics-port',
      '0',
    ];
    const own = ['--identity', identity, '--spool-dir', join(dir, identity), '--advertise-host', '127.0.0.1'];
    const process_ = await startProcess({
      command: NODE,
      args: [join(ROOT, 'operator/main.ts'), ...hosts, ...own],
      logFile,
      env: { ...process.env, KUBECONFIG: plane.kubeconfig },
    });
    operators.push(process_);
    const listening = await eventually(`${identity} listens`, PATIENCE, () => {
      const line = readFileSync(logFile, 'utf8').match(/^\{"listening".*$/m)?.[0];
      return line === undefined
        ? undefined
        : (JSON.parse(line).listening as { push: string; metrics: string });
    });
    return { process: process_, ...listening };
  }

  async function bearerOf(account: string): Promise<string> {
    const token = await kubectl('-n', NAMESPACE, 'create', 'token', account, '--audience', 'lorikeet-push');
    return `Bearer ${token.trim()}`;
  }

  async function rollback(
    base: string,
    body: object,
    account = 'trainer',
  ): Promise<{ status: number; body: unknown }> {
    const response = await fetch(`${base}/v1/namespaces/${NAMESPACE}/adapters/policy/rollback`, {
      method: 'POST',
      headers: { authorization: await bearerOf(account), 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return { status: response.status, body: await response.json() };
  }

  async function push(base: string, seed: number, step: number): Promise<Response> {
    const { tensors, config } = goodAdapter(seed);
    return await fetch(`${base}/v1/namespaces/${NAMESPACE}/adapters/policy/revisions`, {
      method: 'PUT',
      headers: {
        authorization: await bearerOf('trainer'),
        'x-lora-config': config.toString('base64url'),
        'x-lora-step': String(step),
      },
      body: new Uint8Array(tensors),
    });
  }

  it('serves pushes, survives its leader, and gives the lease back', async () => {
    const first = await startOperator('first');
    await eventually('first waits for a push', PATIENCE, async () => {
      const reason = await lora('{.status.conditions[?(@.type=="Ready")].reason}');
      return reason === 'WaitingForPush' ? true : undefined;
    });
    expect((await push(first.push, 1, 1)).status).toBe(200);
    expect(pods.map((pod) => pod.currentOf('policy'))).toEqual(Array(2).fill(digestOf(goodAdapter(1))));
    await kubectl('-n', NAMESPACE, 'wait', '--for=condition=Ready', '--timeout=20s', 'lora/policy');
    expect(await lora('{.status.currentRevision.step} {.status.pods.summary}')).toBe('1 2/2');
    const events = await kubectl('-n', NAMESPACE, 'describe', 'lora', 'policy');
    expect(events).toMatch(/Normal\s+Activated/);
    const metrics = await (await fetch(`${first.metrics}/metrics`)).text();
    const counted = (name: string) =>
      metrics.match(new RegExp(`^lorikeet_operator_${name} (\\d+)$`, 'm'))?.[1] ?? `no ${name}`;
    for (const name of ['api_wait_seconds_count{lane="usual"}', 'api_wait_seconds_count{lane="review"}'])
      expect(Number(counted(name))).toBeGreaterThan(0);
    for (const kind of ['adapters', 'pools'])
      expect(Number(counted(`status_lag_seconds_count{kind="${kind}"}`))).toBeGreaterThan(0);
    for (const kind of ['adapters', 'pools', 'pods'])
      expect(counted(`reflector_misses_total{kind="${kind}"}`)).toBe('0');
    expect(counted('events_dropped_total{cause="failed"}')).toBe('0');

    // A follower hands pushes on, and takes over when the leader goes.
    const second = await startOperator('second');
    await eventually('second forwards', PATIENCE, async () =>
      (await push(second.push, 2, 2)).status === 200 ? true : undefined,
    );
    // So does it a rollback, which then holds, also for the operator that leads next.
    const [earlier, undone] = [1, 2].map((seed) => digestOf(goodAdapter(seed)));
    expect((await rollback(second.push, {}, 'default')).status).toBe(403);
    const answer = await rollback(second.push, { expectCurrent: undone });
    const body = { revision: earlier, previous: undone, noop: false };
    expect(answer).toMatchObject({ status: 200, body });
    expect(pods.map((pod) => pod.currentOf('policy'))).toEqual([earlier, earlier]);
    await eventually('status says so', PATIENCE, async () =>
      (await lora('{.status.desiredRevision.rollback.from}')) === undone ? true : undefined,
    );
    await eventually(
      'an event says so',
      PATIENCE,
      async () =>
        /Normal\s+RolledBack/.test(await kubectl('-n', NAMESPACE, 'describe', 'lora', 'policy')) || undefined,
    );
    expect((await first.process.stop(GRACE_MS)).code).toBe(0);
    const again = await eventually('second leads', SUCCESSION, async () => {
      const reply = await rollback(second.push, {});
      return reply.status === 200 ? reply : undefined;
    });
    expect(again.body).toMatchObject({ revision: earlier, noop: true });
    expect((await push(second.push, 3, 2)).status).toBe(409);
    expect((await push(second.push, 3, 3)).status).toBe(200);
    expect(pods.map((pod) => pod.currentOf('policy'))).toEqual(Array(2).fill(digestOf(goodAdapter(3))));

    await kubectl('-n', NAMESPACE, 'delete', 'lora', 'policy', '--timeout=20s');
    expect(pods.map((pod) => pod.currentOf('policy'))).toEqual([null, null]);

    await kubectl('-n', 'default', 'delete', 'lease', 'lorikeet-operator');
    expect((await second.process.exited).code).toBe(1);
  });
});
