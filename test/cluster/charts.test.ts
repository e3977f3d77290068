import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { isMap, isScalar, parse, parseDocument, stringify } from 'yaml';
import { parseConfig as parseOperatorConfig } from '../../operator/config.ts';
import { argsOf, CASES, deploymentOf, grantsOf, kindsOf } from './chart-cases.ts';
import { helm, helmTemplate, type Manifest } from './helm.ts';

const GOLDEN = fileURLToPath(new URL('golden', import.meta.url));

describe.each(CASES)('the chart $title', ({ chart, title, values }) => {
  it('passes helm lint', async () => {
    expect(await helm(['lint', '--strict', chart, '-f', '-'], { values })).toContain(
      '1 chart(s) linted, 0 chart(s) failed',
    );
  });

  it('renders with defaults what it rendered when a person last looked (vitest -u accepts a change)', async () => {
    const manifests = await helmTemplate({ chart, values });
    const ours = manifests.filter(({ kind }) => kind !== 'CustomResourceDefinition');
    await expect(ours.map((manifest) => stringify(manifest)).join('---\n')).toMatchFileSnapshot(
      `${GOLDEN}/${title}.yaml`,
    );
  });

  it('comments every value, and has a schema that knows exactly these', () => {
    const schema = JSON.parse(readFileSync(`${chart}/values.schema.json`, 'utf8')) as Schema;
    const { uncommented, keys } = readValues(readFileSync(`${chart}/values.yaml`, 'utf8'), schema);
    expect(uncommented).toEqual([]);
    expect(keys.sort()).toEqual(schemaKeys(schema).sort());
  });

  it.each(['repicas', 'image.tga', 'serviceAccount.nam', 'podDisruptionBudget.max'])(
    'refuses the typo %s',
    async (key) => {
      await expect(helm(['template', chart, '-f', '-', '--set', `${key}=1`], { values })).rejects.toThrow(
        'additional properties',
      );
    },
  );
});

interface Schema {
  properties?: Record<string, Schema>;
  additionalProperties?: boolean | object;
}

/** An object whose keys we choose; the keys of others are Kubernetes' or the user's. */
const isOurs = (schema: Schema | undefined) =>
  schema?.properties !== undefined && schema.additionalProperties === false;

function schemaKeys(schema: Schema, prefix = ''): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, inner]) => {
    if (prefix + name === 'global') return [];
    return isOurs(inner) ? schemaKeys(inner, `${prefix}${name}.`) : [prefix + name];
  });
}

/** Every value needs a comment above it; a key that only groups values needs none. */
function readValues(text: string, schema: Schema): { uncommented: string[]; keys: string[] } {
  const lines = text.split('\n');
  const found = { uncommented: [] as string[], keys: [] as string[] };
  const walk = (node: unknown, { properties = {} }: Schema, prefix: string) => {
    if (!isMap(node)) return;
    for (const { key, value } of node.items) {
      if (!isScalar(key)) continue;
      const name = String(key.value);
      const inner = properties[name];
      if (inner && isOurs(inner)) {
        walk(value, inner, `${prefix}${name}.`);
        continue;
      }
      found.keys.push(prefix + name);
      const line = text.slice(0, key.range?.[0]).split('\n').length - 1;
      if (!lines[line - 1]?.trimStart().startsWith('#')) found.uncommented.push(prefix + name);
    }
  };
  walk(parseDocument(text).contents, schema, '');
  return found;
}

describe('the operator chart', () => {
  const { chart } = CASES[0] as { chart: string };

  it('carries the custom resource definitions of crds/, kept when it is uninstalled unless told otherwise', async () => {
    const folder = fileURLToPath(new URL('../../crds', import.meta.url));
    const files = readdirSync(folder).filter((name) => name.endsWith('.yaml'));
    const wanted = files.map((name) => parse(readFileSync(`${folder}/${name}`, 'utf8')) as Manifest);
    const isDefinition = ({ kind }: Manifest) => kind === 'CustomResourceDefinition';
    const kept = (await helmTemplate({ chart })).filter(isDefinition);
    expect(kept.map(({ metadata }) => metadata.annotations)).toEqual(
      files.map(() => ({ 'helm.sh/resource-policy': 'keep' })),
    );
    const byName = (a: Manifest, b: Manifest) => (a.metadata.name < b.metadata.name ? -1 : 1);
    const plain = (await helmTemplate({ chart, values: { crds: { keep: false } } })).filter(isDefinition);
    expect(plain.sort(byName)).toEqual(wanted.sort(byName));
    expect(
      (await helmTemplate({ chart, values: { crds: { install: false } } })).filter(isDefinition),
    ).toEqual([]);
  });

  it('has the rights it needs and no other: no wildcard, no Secret', async () => {
    expect(grantsOf(await helmTemplate({ chart }))).toMatchInlineSnapshot(`
      [
        "ClusterRole lorikeet-view: get,list,watch loraadapters.lorikeet.dev,serverpools.lorikeet.dev",
        "ClusterRole lorikeet-edit: create,update,patch,delete,deletecollection loraadapters.lorikeet.dev",
        "ClusterRole lorikeet-admin: create,update,patch,delete,deletecollection serverpools.lorikeet.dev",
        "ClusterRole lorikeet: create tokenreviews.authentication.k8s.io",
        "ClusterRole lorikeet: create subjectaccessreviews.authorization.k8s.io",
        "ClusterRole lorikeet: get,list,watch,patch loraadapters.lorikeet.dev",
        "ClusterRole lorikeet: get,list,watch serverpools.lorikeet.dev",
        "ClusterRole lorikeet: update loraadapters/status.lorikeet.dev,serverpools/status.lorikeet.dev",
        "ClusterRole lorikeet: get,list,watch pods",
        "ClusterRole lorikeet: create,patch events",
        "ClusterRole lorikeet: get,list,watch namespaces",
        "ClusterRole lorikeet-pusher: get,update loraadapters/tensors.lorikeet.dev",
        "Role test/lorikeet-lease: get,update leases.coordination.k8s.io [lorikeet]",
        "Role test/lorikeet-lease: create leases.coordination.k8s.io",
        "ClusterRole lorikeet-uninstall: list,patch loraadapters.lorikeet.dev",
      ]
    `);
  });

  it('watches one namespace with rights in that namespace only', async () => {
    const manifests = await helmTemplate({ chart, values: { watchNamespace: 'team' } });
    const grants = grantsOf(manifests).filter((grant) => grant.includes('pods'));
    expect(grants).toEqual(['Role team/lorikeet: get,list,watch pods']);
  });

  it('starts the operator with flags that it knows, and values that it accepts', async () => {
    const push = { port: 9000, audience: 'elsewhere', url: 'https://push.example' };
    const more = {
      metrics: { port: 9191 },
      spool: { bytes: '8Gi' },
      relay: { from: 16 },
      source: { awsIdentity: 'ambient', allowedEndpointCidrs: ['127.0.0.0/8', '::1/128'] },
      logLevel: 'debug',
      watchNamespace: 'team',
    };
    const manifests = await helmTemplate({ chart, values: { fullnameOverride: 'bird', push, ...more } });
    const facts: Record<string, string> = { POD_IP: '10.1.2.3', POD_NAME: 'bird-0', POD_NAMESPACE: 'test' };
    const args = argsOf(manifests).map((arg) =>
      arg.replace(/\$\((\w+)\)/, (_, name: string) => facts[name] ?? ''),
    );
    expect(parseOperatorConfig(args, {})).toEqual({
      ...{ pushHost: '10.1.2.3', pushPort: 9000, pushAudience: 'elsewhere', pushUrl: 'https://push.example' },
      ...{ pushTls: null, pushCaFile: null },
      ...{ metricsHost: '10.1.2.3', metricsPort: 9191, advertiseHost: '10.1.2.3', identity: 'bird-0' },
      ...{ spoolDir: '/var/lib/lorikeet/spool', spoolBytes: 8 * 2 ** 30, awsIdentity: 'ambient' },
      allowedEndpointCidrs: ['127.0.0.0/8', '::1/128'],
      relayFrom: 16,
      ...{ leaderNamespace: 'test', leaderName: 'bird', watchNamespace: 'team', logLevel: 'debug' },
    });
  });

  it.each([
    ['', {}, 'kubectl delete loras --all -A'],
    [' of one namespace', { watchNamespace: 'team' }, 'kubectl delete loras --all -n team'],
  ])(
    'says in which order to uninstall%s, and how to get out where that was not kept',
    async (_, values, first) => {
      const told = await helm(['install', 'bird', chart, '--dry-run=client', '-n', 'test', '-f', '-'], {
        values,
      });
      const notes = told.slice(told.indexOf('NOTES:'));
      const order = [first, 'helm uninstall bird -n test', '\'{"metadata":{"finalizers":null}}\''];
      const places = order.map((words) => notes.indexOf(words));
      expect(places).not.toContain(-1);
      expect(places).toEqual(places.toSorted((a, b) => a - b));
    },
  );

  it.each([
    ['an existing Secret', { secret: 'push' }, 'push', 0],
    ['an issuer', { certManager: { issuer: 'ca', dnsNames: ['push.example'] } }, 'lorikeet-push-tls', 1],
  ])('takes pushes over TLS with %s', async (_, tls, secret, made) => {
    const manifests = await helmTemplate({ chart, values: { push: { tls } } });
    const dir = '/etc/lorikeet/push';
    expect(parseOperatorConfig(argsOf(manifests), {})).toMatchObject({
      pushTls: { cert: `${dir}/tls.crt`, key: `${dir}/tls.key` },
      pushCaFile: `${dir}/ca.crt`,
      pushUrl: 'https://lorikeet.test.svc:8080',
    });
    expect(stringify(deploymentOf(manifests))).toContain(`secretName: ${secret}`);
    const certificates = manifests.filter(({ kind }) => kind === 'Certificate').map(({ spec }) => spec);
    expect(certificates).toMatchObject(
      made === 0 ? [] : [{ secretName: secret, dnsNames: ['lorikeet.test.svc', 'push.example'] }],
    );
  });

  it('advertises its Service for pushes where no URL is given', async () => {
    const args = argsOf(await helmTemplate({ chart, values: { push: { port: 9000 } } }));
    expect(args).toContain('--push-url=http://lorikeet.test.svc:9000');
  });

  it('makes no disruption budget for one pod, and no network policy unless asked', async () => {
    expect(kindsOf(await helmTemplate({ chart, values: { replicas: 1 } }))).not.toContain(
      'PodDisruptionBudget',
    );
    expect(kindsOf(await helmTemplate({ chart }))).not.toContain('NetworkPolicy');
    expect(kindsOf(await helmTemplate({ chart, values: { networkPolicy: { enabled: true } } }))).toContain(
      'NetworkPolicy',
    );
  });
});

it('the operator lets only trainers and its like push, and only scrapers read metrics', async () => {
  const { chart } = CASES[0] as { chart: string };
  const peers = {
    trainers: [{ podSelector: { matchLabels: { role: 'trainer' } } }],
    scrapers: [{ podSelector: { matchLabels: { role: 'scraper' } } }],
  };
  const manifests = await helmTemplate({ chart, values: { networkPolicy: { enabled: true, ...peers } } });
  const policy = manifests.find(({ kind }) => kind === 'NetworkPolicy')?.spec as { ingress: object[] };
  const own = { 'app.kubernetes.io/name': 'lorikeet', 'app.kubernetes.io/instance': 'lorikeet' };
  expect(policy.ingress).toEqual([
    { from: [...peers.trainers, { podSelector: { matchLabels: own } }], ports: [{ port: 'push' }] },
    { from: peers.scrapers, ports: [{ port: 'metrics' }] },
  ]);
});
