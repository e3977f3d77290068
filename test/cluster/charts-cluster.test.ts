import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CASES, deploymentOf, everyOperatorKnob, everyServerKnob, SERVER_VALUES } from './chart-cases.ts';
import { CommandFailed } from './command.ts';
import { type ControlPlane, startControlPlane } from './control-plane.ts';
import { bridgeOfNotes, CHARTS, helm, helmInstall, helmTemplate } from './helm.ts';

describe('on a real API server', () => {
  const account = '--as=system:serviceaccount:lorikeet-system:lorikeet';
  let plane: ControlPlane;

  beforeAll(async () => {
    plane = await startControlPlane();
    await helmInstall(plane.kubeconfig, { chart: CHARTS.operator, namespace: 'lorikeet-system' });
    const values = { ...SERVER_VALUES, sourceSecrets: ['s3'] };
    await helmInstall(plane.kubeconfig, { chart: CHARTS.server, name: 'parrot', namespace: 'team', values });
    await plane.kubectl(['create', 'namespace', 'other']);
  });

  afterAll(async () => {
    await plane.stop();
  });

  it('takes a trainer with the bridge that the notes show', async () => {
    const spec = await bridgeOfNotes({ ...SERVER_VALUES, vllmDialect: true });
    const trainer = {
      name: 'trainer',
      image: 'trainer',
      volumeMounts: [{ name: 'output', mountPath: '/output' }],
    };
    const volumes = [...(spec.volumes as object[]), { name: 'output', emptyDir: {} }];
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'trainer', namespace: 'team' },
      spec: { ...spec, serviceAccountName: 'parrot-lorikeet-server', containers: [trainer], volumes },
    };
    const created = await plane.kubectl(['create', '--dry-run=server', '-f', '-'], JSON.stringify(pod));
    expect(created).toContain('pod/trainer created');
  });

  async function canI(...question: string[]): Promise<string> {
    // kubectl says "no" with exit code 1.
    return await plane.kubectl(['auth', 'can-i', account, ...question]).then(
      (answer) => answer.trim(),
      (error: unknown) => {
        if (error instanceof CommandFailed && error.stdout !== '') return error.stdout.trim();
        throw error;
      },
    );
  }

  it.each([
    ['yes', ['get', 'secret/admin', '-n', 'team']],
    ['yes', ['get', 'secret/s3', '-n', 'team']],
    ['no', ['get', 'secret/another', '-n', 'team']],
    ['no', ['get', 'secret/admin', '-n', 'other']],
    ['no', ['list', 'secrets', '-n', 'team']],
    ['no', ['watch', 'secrets', '-n', 'team']],
    ['yes', ['watch', 'pods', '-n', 'other']],
    ['no', ['update', 'pods', '-n', 'team']],
    ['no', ['delete', 'pods', '-n', 'team']],
    ['no', ['create', 'pods/exec', '-n', 'team']],
    ['yes', ['patch', 'loraadapters.lorikeet.dev', '-n', 'other']],
    ['no', ['update', 'loraadapters.lorikeet.dev', '-n', 'other']],
    ['yes', ['update', 'loraadapters.lorikeet.dev', '--subresource=status', '-n', 'other']],
    ['no', ['update', 'loraadapters.lorikeet.dev', '--subresource=tensors', '-n', 'other']],
    ['no', ['patch', 'loraadapters.lorikeet.dev', '--subresource=status', '-n', 'other']],
    ['no', ['patch', 'serverpools.lorikeet.dev', '-n', 'team']],
    ['yes', ['update', 'lease/lorikeet', '-n', 'lorikeet-system']],
    ['no', ['update', 'lease/another', '-n', 'lorikeet-system']],
    ['no', ['update', 'lease/lorikeet', '-n', 'team']],
    ['yes', ['create', 'tokenreviews.authentication.k8s.io']],
    ['no', ['impersonate', 'users']],
    ['no', ['escalate', 'clusterroles']],
  ])('answers %s when the operator asks whether it may %j', async (answer, question) => {
    expect(await canI(...question)).toBe(answer);
  });

  it.each(
    [
      ['get', 'secrets', '-n', 'team'],
      ['get', 'secrets', '--all-namespaces'],
      ['get', 'secret', 'another', '-n', 'team'],
      ['get', 'secret', 'admin', '-n', 'other'],
      ['delete', '--raw=/api/v1/namespaces/team/pods/parrot'],
      ['create', '--raw=/api/v1/namespaces/team/pods/parrot/exec?command=id', '-f', '-'],
      ['create', 'configmap', 'mine', '-n', 'team'],
      ['create', 'clusterrolebinding', 'mine', '--clusterrole=cluster-admin', '--user=operator'],
      ['get', 'nodes'],
    ].map((call) => [call] as const),
  )('refuses the operator itself where it tries to %j', async (call) => {
    await expect(plane.kubectl([...call, account], '{}')).rejects.toThrow(/forbidden/i);
  });

  it('lets a trainer who is bound to the pusher role push in that namespace and look, and change nothing', async () => {
    await plane.kubectl([
      ...['create', 'rolebinding', 'trainer', '-n', 'team'],
      ...['--clusterrole=lorikeet-pusher', '--serviceaccount=team:trainer'],
    ]);
    const ask = (namespace: string, verb: string, ...what: string[]) =>
      plane
        .kubectl([
          'auth',
          'can-i',
          verb,
          'loraadapters.lorikeet.dev',
          ...what,
          '-n',
          namespace,
          '--as=system:serviceaccount:team:trainer',
        ])
        .then(
          (answer) => answer.trim(),
          () => 'no',
        );
    for (const verb of ['update', 'get']) {
      expect(await ask('team', verb, '--subresource=tensors')).toBe('yes');
      expect(await ask('team', verb)).toBe('no');
      expect(await ask('other', verb, '--subresource=tensors')).toBe('no');
    }
  });

  it.each(CASES)(
    'has pods of $title admitted where Pod Security enforces restricted',
    async ({ chart, values, title }) => {
      const namespace = `strict-${title}`;
      const labels = { 'pod-security.kubernetes.io/enforce': 'restricted' };
      await plane.kubectl(
        ['apply', '-f', '-'],
        JSON.stringify({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace, labels } }),
      );
      const { metadata, spec } = deploymentOf(await helmTemplate({ chart, values, namespace })).template;
      const pod = (more: object) => ({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { ...metadata, name: 'pod' },
        spec: { ...spec, ...more },
      });
      const create = ['create', '--dry-run=server', '--validate=strict', '-n', namespace, '-f', '-'];
      await plane.kubectl(['create', 'serviceaccount', String(spec.serviceAccountName), '-n', namespace]);
      expect(await plane.kubectl(create, JSON.stringify(pod({})))).toContain('pod/pod created');
      await expect(plane.kubectl(create, JSON.stringify(pod({ hostNetwork: true })))).rejects.toThrow(
        'violates PodSecurity',
      );
    },
  );

  it.each([
    ['lorikeet', CHARTS.operator, everyOperatorKnob()],
    ['lorikeet-server', CHARTS.server, everyServerKnob()],
  ])('accepts all objects of %s with every knob turned', async (_, chart, values) => {
    const manifests = await helmTemplate({ chart, values, name: 'turned', namespace: 'other' });
    const list = { apiVersion: 'v1', kind: 'List', items: manifests };
    const apply = [
      'apply',
      '--server-side',
      '--force-conflicts',
      '--dry-run=server',
      '--validate=strict',
      '-f',
      '-',
    ];
    expect((await plane.kubectl(apply, JSON.stringify(list))).trim().split('\n')).toHaveLength(
      manifests.length,
    );
  });

  it('upgrades over itself, and leaves the custom resource definitions when it goes', async () => {
    await helmInstall(plane.kubeconfig, {
      chart: CHARTS.operator,
      name: 'lorikeet',
      namespace: 'lorikeet-system',
      // No node is here that would run the Job.
      values: { replicas: 3, uninstall: { releaseAdapters: false } },
    });
    expect(
      await plane.kubectl([
        'get',
        'deployment',
        'lorikeet',
        '-n',
        'lorikeet-system',
        '-o',
        'jsonpath={.spec.replicas}',
      ]),
    ).toBe('3');
    await helm(['uninstall', 'lorikeet', '-n', 'lorikeet-system'], { kubeconfig: plane.kubeconfig });
    expect(await plane.kubectl(['get', 'serverpools', '-n', 'team', '-o', 'name'])).toContain(
      'parrot-lorikeet-server',
    );
  });
});
