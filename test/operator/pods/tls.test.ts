import { Agent } from 'undici';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { ServerPool } from '../../../operator/api/server-pool.ts';
import { systemClock } from '../../../operator/kube/clock.ts';
import { silentLog } from '../../../operator/kube/log.ts';
import { SecretForbidden } from '../../../operator/kube/secrets.ts';
import { Fleet } from '../../../operator/pods/fleet.ts';
import { readPodTls } from '../../../operator/pods/tls.ts';
import { TlsFiles } from '../../../server/transfer/tls-files.ts';
import { type Issued, SecretVolume, TestCa } from '../../support/certificates.ts';
import { eventually } from '../../support/eventually.ts';
import { POD_TOKEN, ScriptedPod } from '../../support/pod/scripted-pod.ts';
import { kubePod, POOL_KEY, serverPool } from '../adapter/objects.ts';

const PATIENCE = { timeoutMs: 20_000, everyMs: 20 };
const LOOK_MS = 10;
const SERVER_NAME = 'parrot.lora.svc';

let ca: TestCa;
let otherCa: TestCa;
let podPair: Issued;
let otherPair: Issued;
let operatorPair: Issued;

beforeAll(() => {
  ca = new TestCa();
  otherCa = new TestCa();
  podPair = ca.issue(`DNS:${SERVER_NAME}`);
  otherPair = otherCa.issue(`DNS:${SERVER_NAME}`);
  operatorPair = ca.issue('DNS:operator');
});
afterAll(() => {
  ca.remove();
  otherCa.remove();
});

let secrets: Record<string, Record<string, string> | Error>;
let volume: SecretVolume;
let files: TlsFiles;
let pod: ScriptedPod;
let dispatcher: Agent;
let fleet: Fleet;

const readSecret = async (_namespace: string, name: string) => {
  const secret = secrets[name];
  if (secret instanceof Error) throw secret;
  return secret ?? null;
};

beforeEach(() => {
  volume = new SecretVolume();
  dispatcher = new Agent();
  secrets = {
    ca: { 'ca.crt': ca.certificate },
    client: { 'tls.crt': operatorPair.cert, 'tls.key': operatorPair.key },
  };
});
afterEach(async () => {
  await fleet?.close();
  await pod?.stop();
  await dispatcher.destroy();
  volume.remove();
});

const show = ({ cert, key }: Issued, clientCa = ca.certificate) =>
  volume.put({ 'tls.crt': cert, 'tls.key': key, 'ca.crt': clientCa });

/** A pod that asks callers for a certificate, or none, and a fleet that follows it. */
async function follow(pair: Issued, { tls = {}, asks = false } = {}): Promise<void> {
  show(pair);
  const [cert, key, clientCa] = ['tls.crt', 'tls.key', 'ca.crt'].map((name) => volume.path(name)) as [
    string,
    string,
    string,
  ];
  files = await TlsFiles.read({ cert, key, clientCa: asks ? clientCa : null }, LOOK_MS);
  pod = await ScriptedPod.start({ host: '127.0.4.1', tls: files });
  const pool = poolWith({ port: pod.port, ...tls });
  fleet = new Fleet({
    pools: { list: () => [pool] },
    pods: { list: () => [kubePod('pod-0', pod.host)] },
    readToken: async () => ({ token: POD_TOKEN, previous: null }),
    readTls: readPodTls(readSecret),
    dispatcher,
    clock: systemClock,
    random: () => 0,
    log: silentLog,
  });
  fleet.sync();
}

function poolWith({ port = 1, ...tls }: { port?: number } & Record<string, unknown>): ServerPool {
  const auth = { tokenSecretRef: { name: 'admin' } };
  return serverPool(port, {
    admin: { port, auth, tls: { caSecretRef: { name: 'ca' }, serverName: SERVER_NAME, ...tls } },
  });
}

const first = () => fleet.podsOf(POOL_KEY)[0];
const isReachable = () => eventually('reachable', PATIENCE, () => first()?.reachable || undefined);
const failure = () => eventually('an error', PATIENCE, () => first()?.error ?? undefined);

describe('a pool with tls', () => {
  it('reaches a pod by its address and knows it by its name', async () => {
    await follow(podPair);
    await isReachable();
    expect(first()?.adminUrl).toBe(pod.url);
    const signal = new AbortController().signal;
    expect(await first()?.client.state(signal)).toMatchObject({ baseModel: { name: 'parrot' } });
  });

  it('shows its certificate to pods that ask for one', async () => {
    await follow(podPair, { asks: true, tls: { clientCertSecretRef: { name: 'client' } } });
    await isReachable();
  });

  it('is refused by them without one', async () => {
    await follow(podPair, { asks: true });
    expect(await failure()).toMatch(/certificate required|closed|reset/i);
    expect(pod.calls).toEqual([]);
  });

  it.each([
    ["whose certificate another CA has signed, and so also one on a gone pod's address", () => otherPair, {}],
    ['that is named otherwise', () => podPair, { serverName: 'owl.lora.svc' }],
  ])('sends nothing, no token either, to a pod %s', async (_name, pair, tls) => {
    await follow(pair(), { tls });
    expect(await failure()).toMatch(/unable to verify|does not match/);
    expect(pod.calls).toEqual([]);
  });

  it('takes a new CA from the Secret without a restart', async () => {
    await follow(podPair, { asks: true, tls: { clientCertSecretRef: { name: 'client' } } });
    await isReachable();
    // The pod is first, as cert-manager does not ask which.
    show(otherPair);
    await eventually('it is there', PATIENCE, () => files.options.cert === otherPair.cert || undefined);
    await pod.restart();
    expect(await failure()).toMatch(/unable to verify/);
    secrets.ca = { 'ca.crt': otherCa.certificate };
    await isReachable();
  });

  it('keeps the last good CA while the Secret is gone or broken', async () => {
    await follow(podPair);
    await isReachable();
    secrets.ca = { 'ca.crt': 'x' };
    await pod.restart();
    await eventually('it asks anew', PATIENCE, () => pod.count('watch') >= 2 || undefined);
    await isReachable();
  });
});

it.each(['10.1.2.3', 'Parrot.svc', '*.parrot.svc', 'parrot..svc', ''])(
  'serverName is a DNS name: not %j',
  (serverName) => {
    expect(() => poolWith({ serverName })).toThrow();
  },
);

describe('Secrets that cannot be used', () => {
  const forbidden = new SecretForbidden('lora', 'ca', new Error('no') as never);
  it.each([
    ['no Secret', { ca: undefined }, 'there is no Secret ca'],
    ['no right', { ca: forbidden }, 'No Role lets the operator get secrets/ca in namespace lora'],
    ['nothing under the key', { ca: {} }, 'Secret ca has nothing under ca.crt'],
    ['no PEM', { ca: { 'ca.crt': 'x' } }, 'ca.crt of Secret ca holds no certificate in PEM'],
    ['no certificate for the client', { client: {} }, 'Secret client has nothing under tls.crt'],
  ])('%s: said in words', async (_name, change, message) => {
    Object.assign(secrets, change);
    const pool = poolWith({ clientCertSecretRef: { name: 'client' } });
    await expect(readPodTls(readSecret)(pool)).rejects.toThrow(message);
  });

  it("the key is another's", async () => {
    secrets.client = { 'tls.crt': operatorPair.cert, 'tls.key': podPair.key };
    const pool = poolWith({ clientCertSecretRef: { name: 'client' } });
    await expect(readPodTls(readSecret)(pool)).rejects.toThrow(
      'tls.key of Secret client is not the key of tls.crt of Secret client',
    );
  });
});
