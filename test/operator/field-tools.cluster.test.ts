import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { judgeArgo, judgeKstatus } from '../cluster/judge.ts';
import { eventually } from '../support/eventually.ts';
import { loraAdapter, NAMESPACE, pushedAdapter, serverPool } from './adapter/objects.ts';
import { type OperatorProcess, OperatorWorld, PATIENCE } from './operator-world.ts';

const FINE = { Current: 'Healthy', InProgress: 'Progressing', Failed: 'Degraded', Suspended: 'Suspended' };
const KINDS = ['LoraAdapter', 'ServerPool'] as const;
type Kind = (typeof KINDS)[number];
interface Seen {
  metadata: {
    generation: number;
    finalizers?: string[];
    managedFields?: { manager: string; fieldsV1: Record<string, object> }[];
  };
  status?: { conditions?: { type: string; status: string; reason: string; observedGeneration: number }[] };
}

/** Starts an etcd, an API server and an operator as a process: about ten seconds. */
describe('kubectl, kstatus and Argo CD, of what a real API server holds', () => {
  let world: OperatorWorld;
  let operator: OperatorProcess;
  const unseen = new Map<Kind, Seen>();

  beforeAll(async () => {
    world = await OperatorWorld.start({ network: '127.0.6' });
    await world.apply(anAdapter('early'), anotherPool('early', 'early'));
    for (const kind of KINDS) unseen.set(kind, await seen(kind, 'early'));
    operator = await world.startOperator('operator');
  });

  afterAll(async () => {
    await world?.stop();
  });

  const anAdapter = (name: string, spec: object = {}) =>
    pushedAdapter(name, { metadata: { finalizers: [] }, spec: { ...spec } });
  const anotherPool = (name: string, app: string) => {
    const pool = serverPool(world.pods[0]?.port ?? 0, { selector: { matchLabels: { app } } });
    return { ...pool, metadata: { name, namespace: NAMESPACE } };
  };

  async function seen(kind: Kind, name: string): Promise<Seen> {
    return JSON.parse(
      await world.kubectl('-n', NAMESPACE, 'get', kind, name, '--show-managed-fields', '-o', 'json'),
    );
  }

  /** The object as soon as its Ready condition has the reason. */
  async function until(kind: Kind, name: string, reason: string): Promise<Seen> {
    return await eventually(`${name}: ${reason}`, PATIENCE, async () => {
      const object = await seen(kind, name);
      const ready = object.status?.conditions?.find(({ type }) => type === 'Ready');
      return ready?.reason === reason && ready.observedGeneration === object.metadata.generation
        ? object
        : undefined;
    });
  }

  /** Pushes to the adapter, which is there, and waits until it is Ready, as people do. */
  async function serve(name: string): Promise<Seen> {
    await until('LoraAdapter', name, 'WaitingForPush');
    expect((await world.push(operator.push, { adapter: name, seed: 1 })).status).toBe(200);
    await world.kubectl('-n', NAMESPACE, 'wait', '--for=condition=Ready', '--timeout=20s', `lora/${name}`);
    return await seen('LoraAdapter', name);
  }

  async function judged(kind: Kind, object: Seen) {
    const [[kstatus], [argo]] = await Promise.all([judgeKstatus([object]), judgeArgo(kind, [object])]);
    return { kstatus: kstatus?.status, argo: argo?.status };
  }

  const ownersOfSpec = ({ metadata }: Seen) =>
    metadata.managedFields?.filter(({ fieldsV1 }) => 'f:spec' in fieldsV1).map(({ manager }) => manager);

  const progressOf = ({ status }: Seen) =>
    status?.conditions
      ?.filter(({ type }) => type === 'Reconciling' || type === 'Stalled')
      .map(({ type, status: is, reason }) => `${type} ${is} ${reason}`);

  it('take an object that no operator has looked at for one on its way', async () => {
    for (const [kind, object] of unseen)
      expect(await judged(kind, object)).toEqual({ kstatus: 'InProgress', argo: FINE.InProgress });
  });

  it('take a pool for done when all its pods answer', async () => {
    const pool = await until('ServerPool', 'parrot', 'PodsReady');
    expect(await judged('ServerPool', pool)).toEqual({ kstatus: 'Current', argo: FINE.Current });
    expect(progressOf(pool)).toEqual([]);
  });

  it('take a pool without pods for one on its way', async () => {
    const pool = await until('ServerPool', 'early', 'NoPodsMatch');
    expect(await judged('ServerPool', pool)).toEqual({ kstatus: 'InProgress', argo: FINE.InProgress });
    expect(progressOf(pool)).toEqual(['Reconciling True NoPodsMatch']);
  });

  it('take a pool whose pods are those of another one for failed', async () => {
    await world.apply(anotherPool('late', 'parrot'));
    const pool = await until('ServerPool', 'late', 'PodsOwnedElsewhere');
    expect(await judged('ServerPool', pool)).toEqual({ kstatus: 'Failed', argo: FINE.Failed });
    expect(progressOf(pool)).toEqual(['Stalled True PodsOwnedElsewhere']);
    await world.kubectl('-n', NAMESPACE, 'delete', 'serverpool', 'late');
  });

  it('wait for the first push, then take what is served for done', async () => {
    const waiting = await until('LoraAdapter', 'early', 'WaitingForPush');
    expect(await judged('LoraAdapter', waiting)).toEqual({ kstatus: 'InProgress', argo: FINE.Suspended });
    expect(progressOf(waiting)).toEqual(['Reconciling True WaitingForPush']);
    const served = await serve('early');
    expect(await judged('LoraAdapter', served)).toEqual({ kstatus: 'Current', argo: FINE.Current });
    expect(progressOf(served)).toEqual([]);
  });

  it('are told of a spec that the operator has not acted on yet', async () => {
    await world.apply(anAdapter('changed'));
    const served = await serve('changed');
    const { generation } = served.metadata;
    const changed = { ...served, metadata: { ...served.metadata, generation: generation + 1 } };
    expect(await judged('LoraAdapter', changed)).toEqual({ kstatus: 'InProgress', argo: FINE.InProgress });
  });

  it('take an adapter without its pool for one on its way', async () => {
    await world.apply(anAdapter('lost', { poolRef: { name: 'nowhere' } }));
    const adapter = await until('LoraAdapter', 'lost', 'PoolNotFound');
    expect(await judged('LoraAdapter', adapter)).toEqual({ kstatus: 'InProgress', argo: FINE.InProgress });
  });

  it('take a source that can never be read for failed', async () => {
    const http = { url: 'http://127.0.0.1:9/adapter_model.safetensors', sha256: 'a'.repeat(64) };
    await world.apply(loraAdapter('refused', { metadata: { finalizers: [] }, spec: { source: { http } } }));
    const adapter = await until('LoraAdapter', 'refused', 'SourceInvalid');
    expect(await judged('LoraAdapter', adapter)).toEqual({ kstatus: 'Failed', argo: FINE.Failed });
    expect(progressOf(adapter)).toEqual(['Stalled True SourceInvalid']);
  });

  it('know suspended adapters, served or not, and those that ask for no pod', async () => {
    await world.apply(anAdapter('paused'), anAdapter('never', { suspend: true }));
    await serve('paused');
    await world.apply(anAdapter('paused', { suspend: true }));
    const served = await until('LoraAdapter', 'paused', 'Suspended');
    expect(await judged('LoraAdapter', served)).toEqual({ kstatus: 'Current', argo: FINE.Suspended });
    const never = await until('LoraAdapter', 'never', 'Suspended');
    expect(await judged('LoraAdapter', never)).toEqual({ kstatus: 'Failed', argo: FINE.Suspended });
    await world.apply(anAdapter('parked', { placement: { mode: 'Fixed', replicas: 0 } }));
    const parked = await until('LoraAdapter', 'parked', 'NoReplicas');
    expect(await judged('LoraAdapter', parked)).toEqual({ kstatus: 'Failed', argo: FINE.Suspended });
  });

  it.each([['--server-side'], ['--server-side=false']])(
    'find nothing to change where kubectl applies with %s, though the operator has written',
    async (how) => {
      const name = `gitops${how.length}`;
      const metadata = { name, namespace: NAMESPACE, labels: { team: 'rl' } };
      const spec = { poolRef: { name: 'parrot' }, source: { push: {} }, update: { keepRevisions: 4 } };
      const manifest = JSON.stringify({
        apiVersion: 'lorikeet.dev/v1alpha1',
        kind: 'LoraAdapter',
        metadata,
        spec,
      });
      const tell = (verb: string) => world.plane.kubectl([verb, how, '-f', '-'], manifest);
      await tell('apply');
      const before = await serve(name);
      expect(before.metadata.finalizers).toHaveLength(1);
      expect(await tell('diff')).toBe('');
      await tell('apply');
      const after = await seen('LoraAdapter', name);
      expect([after.metadata.generation, after.metadata.finalizers]).toEqual([1, before.metadata.finalizers]);
      expect(ownersOfSpec(after)).toEqual([
        how === '--server-side' ? 'kubectl' : 'kubectl-client-side-apply',
      ]);
    },
  );

  it('show events, columns and fields', async () => {
    await world.apply(anAdapter('shown'));
    await serve('shown');
    const events = await world.kubectl('-n', NAMESPACE, 'events', '--for', 'lora/shown');
    expect(events).toMatch(/Normal\s+Ready\s+LoraAdapter\/shown/);
    const wide = await world.kubectl('-n', NAMESPACE, 'get', 'lora', 'shown', '-o', 'wide');
    expect(wide).toMatch(/READY.*REASON\nshown.*True.*Ready\n/);
    const explained = await world.kubectl('explain', 'lora.spec.placement.mode');
    expect(explained).toContain('every pod of the pool');
  });

  it('see an adapter go', async () => {
    await world.apply(anAdapter('gone'));
    await until('LoraAdapter', 'gone', 'WaitingForPush');
    const lora = ['-n', NAMESPACE, 'lora/gone'];
    await world.kubectl('delete', '--wait=false', ...lora);
    await world.kubectl('wait', '--for=delete', '--timeout=20s', ...lora);
    await expect(seen('LoraAdapter', 'gone')).rejects.toThrow('not found');
  });
});
