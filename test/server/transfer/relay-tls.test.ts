import { Agent, request } from 'undici';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { RelayedPod } from '../../../server/contract/adapter-api.ts';
import { CaFile } from '../../../server/transfer/ca-file.ts';
import { TlsFiles } from '../../../server/transfer/tls-files.ts';
import { bigAdapter, configHeader } from '../../operator/push/adapters.ts';
import { digestOf } from '../../support/adapter-files.ts';
import { type Issued, SecretVolume, TestCa } from '../../support/certificates.ts';
import { POD_TOKEN, ScriptedPod } from '../../support/pod/scripted-pod.ts';

const PATH = '/lora/v1/adapters/sql/revisions';
const NAME = 'parrot.lora.svc';
// No pod here hangs: what is too late is late by the machine's load only.
const PATIENT = { stallMs: 30_000, lateMs: 30_000 };
const files = bigAdapter();
const whole = digestOf(files);

let ca: TestCa;
let otherCa: TestCa;
let podPair: Issued;
let operatorPair: Issued;
beforeAll(() => {
  ca = new TestCa();
  otherCa = new TestCa();
  podPair = ca.issue(`DNS:${NAME}`);
  operatorPair = ca.issue('DNS:operator');
});
afterAll(() => {
  ca.remove();
  otherCa.remove();
});

interface PodTls {
  pair?: Issued;
  /** Of those that call it. */
  clientCa?: string;
  /** Of those that it calls; null: it knows none. */
  relayCa?: string | null;
}

let pods: ScriptedPod[];
let volumes: SecretVolume[];
let agent: Agent;
beforeEach(() => {
  pods = [];
  volumes = [];
  agent = new Agent({
    connect: { ca: ca.certificate, ...operatorPair, servername: NAME },
    allowH2: false,
  });
});
afterEach(async () => {
  await Promise.all(pods.map((pod) => pod.stop()));
  await agent.destroy();
  for (const volume of volumes) volume.remove();
});

/** One pool: addresses of their own, one port, and certificates of one CA where nothing else is said. */
async function start(...all: PodTls[]): Promise<ScriptedPod[]> {
  for (const { pair = podPair, clientCa = ca.certificate, relayCa = ca.certificate } of all) {
    const volume = new SecretVolume();
    volumes.push(volume);
    volume.put({ crt: pair.cert, key: pair.key, clients: clientCa, pods: relayCa ?? '' });
    const paths = { cert: volume.path('crt'), key: volume.path('key'), clientCa: volume.path('clients') };
    const options = {
      host: `127.0.6.${pods.length + 1}`,
      port: pods[0]?.port ?? 0,
      tls: await TlsFiles.read(paths),
      relayLimits: PATIENT,
    };
    const known = relayCa === null ? {} : { relayCa: await CaFile.read(volume.path('pods')) };
    pods.push(await ScriptedPod.start({ ...options, ...known }));
  }
  return pods;
}

interface Answer {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: replies and refusals.
  body: any;
}

async function upload(behind = pods.slice(1).map(({ url }) => url)): Promise<Answer> {
  const headers = {
    authorization: `Bearer ${POD_TOKEN}`,
    'x-lora-config': configHeader(files.config),
    'content-length': String(files.tensors.length),
    'x-lora-relay': behind.join(','),
  };
  const options = { method: 'POST', headers, body: files.tensors, dispatcher: agent } as const;
  const response = await request(`${pods[0]?.url}${PATH}`, options);
  return { status: response.statusCode, body: await response.body.json() };
}

const holds = () =>
  pods.map(({ registry }) =>
    registry.state().adapters.flatMap(({ revisions }) => revisions.map(({ digest }) => digest)),
  );
const fatesOf = ({ body }: Answer) =>
  (body.relayed as RelayedPod[]).map(({ state, error }) =>
    error === null ? state : `${state}: ${error.message}`,
  );

describe('a body that is relayed over TLS', () => {
  it('is in every pod; each shows its certificate to the next', async () => {
    await start({}, {}, {});
    const answer = await upload();
    expect([answer.status, fatesOf(answer), holds()]).toEqual([
      200,
      ['staged', 'staged'],
      [[whole], [whole], [whole]],
    ]);
    expect(pods[1]?.calls[0]?.headers['x-lora-relay']).toBe(pods[2]?.url);
    expect(pods[2]?.url).toMatch(/^https:/);
  });

  it.each<[string, () => PodTls, RegExp]>([
    ['of another CA', () => ({ pair: otherCa.issue(`DNS:${NAME}`) }), /unable to verify/],
    ['for another name', () => ({ pair: ca.issue('DNS:owl.lora.svc') }), /does not match/],
  ])(
    "goes to none on a pod's address that has a certificate %s, and no token either",
    async (_, stranger, why) => {
      await start({}, {}, stranger(), {});
      const answer = await upload();
      expect([answer.status, fatesOf(answer), holds()]).toEqual([
        200,
        ['staged', expect.stringMatching(why), 'skipped'],
        [[whole], [whole], [], []],
      ]);
      expect(pods[2]?.calls).toEqual([]);
    },
  );

  it('is not taken from one whose own certificate the next does not know', async () => {
    await start({}, { clientCa: otherCa.certificate });
    const answer = await upload();
    expect([answer.status, fatesOf(answer), holds()]).toEqual([
      200,
      [expect.stringMatching(/^failed/)],
      [[whole], []],
    ]);
    expect(pods[1]?.calls).toEqual([]);
  });

  it('goes to a pod of a new CA as soon as the one before has that CA', async () => {
    const [first] = await start({}, { pair: otherCa.issue(`DNS:${NAME}`) });
    expect(fatesOf(await upload())).toEqual([expect.stringMatching(/unable to verify/)]);
    volumes[0]?.put({
      crt: podPair.cert,
      key: podPair.key,
      clients: ca.certificate,
      pods: otherCa.certificate,
    });
    await first?.registry.remove('sql', null, null);
    expect(fatesOf(await upload())).toEqual(['staged']);
  });

  it('goes on neither in plain text nor from a pod that knows no CA', async () => {
    await start({}, { relayCa: null });
    const plain = await upload([`http://127.0.6.2:${pods[0]?.port}`]);
    expect([plain.status, plain.body.error.field]).toEqual([400, 'x-lora-relay']);
    pods.reverse();
    const unknown = await upload();
    expect([unknown.status, unknown.body.error.expected]).toEqual([400, 'none without --relay-ca-file']);
    expect(holds()).toEqual([[], []]);
  });
});

it('a pod says that it passes bodies on where it knows a CA, and its certificate is also one of a client', async () => {
  const serverOnly = ca.issue(`DNS:${NAME}`, 'server', ['-addext', 'extendedKeyUsage=serverAuth']);
  const both = ca.issue(`DNS:${NAME}`, 'both', ['-addext', 'extendedKeyUsage=serverAuth,clientAuth']);
  await start({}, { relayCa: null }, { pair: serverOnly }, { pair: both });
  const said = await Promise.all(
    pods.map(async ({ url }) => {
      const headers = { authorization: `Bearer ${POD_TOKEN}` };
      const { body } = await request(`${url}/lora/v1/state`, { headers, dispatcher: agent });
      return ((await body.json()) as { relays: boolean }).relays;
    }),
  );
  expect(said).toEqual([true, false, false, true]);
});
