import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { isMap, isScalar, parse, parseDocument, stringify } from 'yaml';
import { ServerPoolSpec } from '../../operator/api/server-pool.ts';
import { parseConfig as parseOperatorConfig } from '../../operator/config.ts';
import { parseConfig as parseBridgeConfig } from '../../server/bridge/config.ts';
import { parseConfig as parseServerConfig } from '../../server/config.ts';
import { argsOf, CASES, deploymentOf, kindsOf, SERVER_VALUES } from './chart-cases.ts';
import { bridgeOfNotes, helm, helmTemplate, type Manifest } from './helm.ts';

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

interface Rule {
  apiGroups: string[];
  resources: string[];
  resourceNames?: string[];
  verbs: string[];
}

/** One line per rule: kind, name, resources with their groups, names, verbs. */
function grantsOf(manifests: Manifest[]): string[] {
  const roles = manifests.filter(({ kind }) => kind === 'Role' || kind === 'ClusterRole');
  return roles.flatMap(({ kind, metadata, rules }) =>
    (rules as Rule[]).map(({ apiGroups, resources, resourceNames = [], verbs }) => {
      const where = kind === 'Role' ? `${metadata.namespace}/${metadata.name}` : metadata.name;
      const what = resources.map((resource) => [resource, ...apiGroups.filter(Boolean)].join('.'));
      const names = resourceNames.length > 0 ? ` [${resourceNames.join(',')}]` : '';
      return `${kind} ${where}: ${verbs.join(',')} ${what.join(',')}${names}`;
    }),
  );
}

describe('the server chart', () => {
  const { chart, values } = CASES[1] as { chart: string; values: typeof SERVER_VALUES };

  it('starts the server with flags that the server knows, and values that it accepts', async () => {
    const engine = {
      backend: 'cpu',
      dtype: 'bfloat16',
      slots: 3,
      maxRank: 16,
      maxAdapterBytes: '1Mi',
      hostBytes: '2Mi',
      kvBytes: '3Mi',
    };
    const limits = {
      ...{ maxBatch: 4, maxBatchTokens: 64, maxWaiting: 5, threads: 2 },
      ...{ maxModelLen: 1024, generationConfig: 'vllm', logprobsMode: 'processed' },
    };
    const manifests = await helmTemplate({
      chart,
      values: {
        ...values,
        model: { ...values.model, subPath: 'v1' },
        engine: { ...engine, ...limits, prefixCache: 'off' },
        allowedOrigins: '*',
        probes: { stepSeconds: 9 },
        shutdown: { timeoutSeconds: 7 },
      },
    });
    const args = argsOf(manifests).map((arg) => arg.replace('$(POD_IP)', '10.1.2.3'));
    expect(parseServerConfig(args, {})).toEqual({
      ...{ model: '/models/base/v1', servedModelName: 'parrot', adapters: [] },
      ...{ host: '10.1.2.3', port: 8000, allowedOrigins: ['*'], adminHost: '10.1.2.3', adminPort: 8001 },
      ...{
        adminTokenFile: '/etc/lorikeet/admin/token',
        adminTls: null,
        readyWhen: 'seeded',
        logLevel: 'info',
        stepTimeoutMs: 9_000,
        shutdownTimeoutMs: 7_000,
        // For a trainer beside one server; pools are pushed to through the operator.
        ...{ vllmApi: false, loraRoot: null },
      },
      ...{ ...engine, maxAdapterBytes: 2 ** 20, hostBytes: 2 * 2 ** 20, kvBytes: 3 * 2 ** 20 },
      ...limits,
      prefixCache: false,
    });
  });

  it('lets the operator read exactly the Secrets that are named', async () => {
    const manifests = await helmTemplate({ chart, values: { ...values, sourceSecrets: ['s3', 'admin'] } });
    expect(grantsOf(manifests)).toEqual([
      'Role test/lorikeet-lorikeet-server-secrets: get secrets [admin,s3]',
    ]);
  });

  it.each([
    ['existing Secrets', { secret: 'pods', clientSecret: 'client' }, ['pods', 'client'], 0],
    [
      'an issuer',
      { certManager: { issuer: 'pool-ca' } },
      ['lorikeet-lorikeet-server-admin-tls', 'lorikeet-lorikeet-server-operator-tls'],
      2,
    ],
  ])(
    'speaks TLS both ways with %s, and the operator never sees the key of the pods',
    async (_, tls, names, made) => {
      const manifests = await helmTemplate({ chart, values: { ...values, admin: { ...values.admin, tls } } });
      const dir = '/etc/lorikeet/tls';
      const paths = { cert: `${dir}/tls.crt`, key: `${dir}/tls.key`, clientCa: `${dir}/ca.crt` };
      expect(parseServerConfig(argsOf(manifests), {})?.adminTls).toEqual(paths);
      const [podSecret, clientSecret] = names;
      const pool = manifests.find(({ kind }) => kind === 'ServerPool') as Manifest;
      const { admin } = ServerPoolSpec.parse(pool.spec);
      expect(admin.tls).toEqual({
        serverName: 'lorikeet-lorikeet-server.test.svc',
        caSecretRef: { name: clientSecret, key: 'ca.crt' },
        clientCertSecretRef: { name: clientSecret },
      });
      expect(grantsOf(manifests)).toEqual([
        `Role test/lorikeet-lorikeet-server-secrets: get secrets [admin,${clientSecret}]`,
      ]);
      expect(stringify(deploymentOf(manifests))).toContain(`secretName: ${podSecret}`);
      const certificates = manifests.filter(({ kind }) => kind === 'Certificate');
      expect(certificates.map(({ spec }) => (spec as { secretName: string }).secretName)).toEqual(
        made === 0 ? [] : names,
      );
    },
  );

  it('lets the operator and pods of the pool reach the admin port, and pods reach nothing else', async () => {
    const manifests = await helmTemplate({ chart, values: { ...values, networkPolicy: { enabled: true } } });
    const pods = { podSelector: { matchLabels: deploymentOf(manifests).selector.matchLabels } };
    const operator = {
      namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'lorikeet-system' } },
      podSelector: { matchLabels: { 'app.kubernetes.io/name': 'lorikeet' } },
    };
    const ports = [{ port: 'admin' }];
    expect(manifests.find(({ kind }) => kind === 'NetworkPolicy')?.spec).toMatchObject({
      policyTypes: ['Ingress', 'Egress'],
      ingress: [{ ports: [{ port: 'serving' }] }, { ports, from: [operator, pods] }],
      egress: [{ ports, to: [pods] }],
    });
  });

  it('gives the pods no token and no right', async () => {
    const manifests = await helmTemplate({ chart, values });
    expect(deploymentOf(manifests).template.spec).toMatchObject({ automountServiceAccountToken: false });
    const bound = manifests.filter(({ kind }) => kind === 'RoleBinding').flatMap(({ subjects }) => subjects);
    expect(bound).toEqual([{ kind: 'ServiceAccount', name: 'lorikeet', namespace: 'lorikeet-system' }]);
  });

  it('runs on a GPU where one is asked for', async () => {
    const limits = { 'nvidia.com/gpu': 1 };
    const gpu = { ...values, engine: { backend: 'cuda' }, runtimeClassName: 'nvidia', resources: { limits } };
    const manifests = await helmTemplate({ chart, values: gpu });
    expect(argsOf(manifests)).toContain('--backend=cuda');
    const { spec } = deploymentOf(manifests).template;
    expect(spec).toMatchObject({ runtimeClassName: 'nvidia' });
    expect(spec.containers[0]?.resources).toMatchObject({ limits });
  });

  it('speaks as a vLLM where that is asked for, with an address for each pod', async () => {
    const manifests = await helmTemplate({ chart, values: { ...values, vllmDialect: true } });
    const [container] = deploymentOf(manifests).template.spec.containers;
    expect(container?.env).toContainEqual({ name: 'LORIKEET_VLLM_API', value: '1' });
    const headless = manifests.find(({ metadata }) => metadata.name === 'lorikeet-lorikeet-server-pods');
    expect(headless?.spec).toMatchObject({
      clusterIP: 'None',
      ports: [{ port: 8000, targetPort: 'serving' }],
    });
    expect(kindsOf(await helmTemplate({ chart, values })).filter((kind) => kind === 'Service')).toHaveLength(
      1,
    );
  });

  it('shows a bridge for a trainer whose arguments the bridge takes', async () => {
    const { initContainers } = await bridgeOfNotes({ ...values, vllmDialect: true });
    const [bridge] = initContainers as { command: string[]; args: string[] }[];
    expect(bridge?.command).toEqual(['node', 'server/bridge/main.ts']);
    expect(parseBridgeConfig(bridge?.args ?? [], {})).toMatchObject({
      serving: 'lorikeet-lorikeet-server-pods.test:8000',
      push: { kind: 'operator' },
      loraRoot: '/output',
      host: '127.0.0.1',
    });
  });

  it.each([
    [{ model: { name: 'parrot' } }, '/model/volume'],
    [{ ...SERVER_VALUES, model: { ...SERVER_VALUES.model, name: '' } }, '/model/name'],
    [{ ...SERVER_VALUES, admin: { tokenSecret: { name: '' } } }, '/admin/tokenSecret/name'],
    [
      { ...SERVER_VALUES, admin: { ...SERVER_VALUES.admin, tls: { clientSecret: 'x' } } },
      'needs admin.tls.secret',
    ],
    [{ ...SERVER_VALUES, engine: { kvBytes: '3 GB' } }, '/engine/kvBytes'],
    [{ ...SERVER_VALUES, engine: { backend: 'cuda' } }, 'nvidia.com/gpu'],
  ])('says what is wrong with %j', async (wrong, word) => {
    await expect(helmTemplate({ chart, values: wrong })).rejects.toThrow(word);
  });
});
