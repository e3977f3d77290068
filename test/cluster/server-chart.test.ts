import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { ServerPoolSpec } from '../../operator/api/server-pool.ts';
import { parseConfig as parseBridgeConfig } from '../../server/bridge/config.ts';
import { parseConfig as parseServerConfig } from '../../server/config.ts';
import { argsOf, CASES, deploymentOf, grantsOf, kindsOf, SERVER_VALUES } from './chart-cases.ts';
import { bridgeOfNotes, helmTemplate, type Manifest } from './helm.ts';

interface Container {
  image: string;
  args: string[];
  env: object[];
  volumeMounts: { name: string }[];
}

/** What is the same of vLLM and SGLang. */
const EVERY_ENGINE = [
  '--enable-lora',
  '--max-lora-rank=16',
  '--served-model-name=parrot',
  '--host=127.0.0.1',
  '--port=8080',
];

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
      ...{ model: '/models/base/v1', servedModelName: 'parrot', attached: null, adapters: [] },
      ...{ host: '10.1.2.3', port: 8000, allowedOrigins: ['*'], adminHost: '10.1.2.3', adminPort: 8001 },
      ...{
        adminTokenFile: '/etc/lorikeet/admin/token',
        ...{ adminTls: null, relayCaFile: null },
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

  it('puts the server before a vLLM in the same pod, which holds as many adapters as the server says', async () => {
    const attached = { image: 'vllm/vllm-openai:v0.32.0' };
    const engine = { kind: 'vllm', slots: 3, maxRank: 16 };
    const manifests = await helmTemplate({ chart, values: { ...values, engine, attached } });
    const [server, vllm] = deploymentOf(manifests).template.spec.containers as unknown as Container[];
    const args = server?.args.map((arg) => arg.replace('$(POD_IP)', '10.1.2.3')) ?? [];
    expect(parseServerConfig(args, {})).toMatchObject({
      ...{ slots: 3, maxRank: 16 },
      attached: { kind: 'vllm', url: 'http://127.0.0.1:8080', dir: '/adapters', seenAs: '/adapters' },
    });
    expect(vllm).toMatchObject({
      image: attached.image,
      command: ['vllm', 'serve'],
      args: ['/models/base/', '--max-loras=3', '--max-cpu-loras=3', ...EVERY_ENGINE],
      env: expect.arrayContaining([{ name: 'VLLM_ALLOW_RUNTIME_LORA_UPDATING', value: 'True' }]),
    });
    const seen = [server, vllm].map((one) => one?.volumeMounts.find(({ name }) => name === 'adapters'));
    expect(seen).toEqual([
      { name: 'adapters', mountPath: '/adapters' },
      { name: 'adapters', mountPath: '/adapters', readOnly: true },
    ]);
    const { volumes } = deploymentOf(manifests).template.spec as unknown as { volumes: { name: string }[] };
    expect(volumes).toContainEqual({ name: 'adapters', emptyDir: { medium: 'Memory', sizeLimit: '2Gi' } });
  });

  it('puts it before an SGLang as well, with what the user says besides', async () => {
    const attached = {
      image: 'lmsysorg/sglang:v0.5.23',
      args: ['--tp={{ .Values.engine.threads }}'],
      env: [{ name: 'A', value: 'b' }],
    };
    const engine = { kind: 'sglang', slots: 3, maxRank: 16, threads: 2 };
    const manifests = await helmTemplate({ chart, values: { ...values, engine, attached } });
    const [server, sglang] = deploymentOf(manifests).template.spec.containers as unknown as Container[];
    expect(server?.args).toContain('--engine=sglang');
    expect(sglang).toMatchObject({
      command: ['python3', '-m', 'sglang.launch_server'],
      args: [
        '--model-path=/models/base/',
        '--lora-target-modules=all',
        '--max-loras-per-batch=3',
        '--max-loaded-loras=3',
        ...EVERY_ENGINE,
        '--tp=2',
      ],
      env: [
        { name: 'HOME', value: '/tmp' },
        { name: 'A', value: 'b' },
      ],
    });
  });

  it('says what is missing of a vLLM', async () => {
    const rendered = helmTemplate({ chart, values: { ...values, engine: { kind: 'vllm' } } });
    await expect(rendered).rejects.toThrow('Expected the image of a vLLM or SGLang as attached.image');
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
      const config = parseServerConfig(argsOf(manifests), {});
      expect([config?.adminTls, config?.relayCaFile]).toEqual([paths, `${dir}/ca.crt`]);
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

  it('shows one that speaks TLS to the operator where its CA is named', async () => {
    const operator = { pushCaSecret: 'push-ca' };
    const spec = await bridgeOfNotes({ ...values, vllmDialect: true, operator });
    const [bridge] = spec.initContainers as { args: string[]; volumeMounts: object[] }[];
    expect(parseBridgeConfig(bridge?.args ?? [], {})).toMatchObject({
      push: { namespaceUrl: 'https://lorikeet.lorikeet-system.svc:8080/v1/namespaces/test' },
      pushCaFile: '/etc/lorikeet/push/ca.crt',
    });
    const mount = { name: 'lorikeet-push-ca', mountPath: '/etc/lorikeet/push', readOnly: true };
    expect(bridge?.volumeMounts).toContainEqual(mount);
    const secret = { secretName: 'push-ca', items: [{ key: 'ca.crt', path: 'ca.crt' }] };
    expect(spec.volumes).toContainEqual({ name: 'lorikeet-push-ca', secret });
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
