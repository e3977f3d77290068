import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCommand } from '../cluster/command.ts';
import { brokenAdapters } from '../support/broken-adapters.ts';
import { toolPath } from '../support/tools.ts';
import { ask, fixtureAdapter } from './client.ts';
import { BUCKET, pushedAdapter, storedAdapter } from './manifests.ts';
import { kubeconfigOf } from './user.ts';
import { NAMESPACE, PARROT, ROOT, SYSTEM, World } from './world.ts';

/** The plugin as a user has it: the built file on the PATH, called by the real kubectl, through a port-forward. */

const QUESTION = 'List the name of all players from Lima.';
const NODE = join(ROOT, 'node_modules/.bin/node');
let world: World;
let dir: string;

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

interface How {
  kubeconfig?: string;
  env?: NodeJS.ProcessEnv;
}

/** `kubectl lora …` in the pool's namespace. */
function lora(line: string, { kubeconfig = world.plane.kubeconfig, env = {} }: How = {}): Promise<Ended> {
  return kubectl(['lora', ...line.split(' ').filter(Boolean), '-n', NAMESPACE], { kubeconfig, env });
}

function kubectl(
  args: string[],
  { kubeconfig = world.plane.kubeconfig, env = {} }: How = {},
): Promise<Ended> {
  const path = { PATH: `${dir}/bin:/usr/bin:/bin`, HOME: dir, KUBECONFIG: kubeconfig };
  return new Promise((resolve) => {
    execFile(join(dir, 'bin/kubectl'), args, { env: { ...path, ...env } }, (error, stdout, stderr) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, stdout, stderr });
    });
  });
}

const folder = (name: string) => join(PARROT, 'adapters', name);

/** Pushes, and returns the digest. */
async function pushed(adapter: string, content: string, step: number): Promise<string> {
  const { code, stdout, stderr } = await lora(`push ${adapter} ${folder(content)} --step ${step} -o json`);
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout).revision;
}

async function liveAdapter(name: string, more: object = {}): Promise<void> {
  await world.apply(pushedAdapter(name, more));
  await world.untilAdapter(name, 'observed', ({ conditions }) => conditions.Ready !== undefined);
}

const userWith = (role: string) => kubeconfigOf(world, role, dir);

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'lorikeet-cli-'));
  await mkdir(join(dir, 'bin'));
  await runCommand(NODE, [join(ROOT, 'operator/cli/build.ts'), '--out', dir]);
  await cp(join(dir, 'kubectl-lora'), join(dir, 'bin/kubectl-lora'));
  await symlink(NODE, join(dir, 'bin/node'));
  await symlink(join(toolPath('assets'), 'kubectl'), join(dir, 'bin/kubectl'));
  world = await World.withPool();
  await world.tokenFor('trainer', 'lorikeet-push');
  await world.allowPush('trainer');
  const { tensors, config } = await fixtureAdapter('sql');
  await world.store.put(BUCKET, 'sql/adapter_model.safetensors', tensors);
  await world.store.put(BUCKET, 'sql/adapter_config.json', config);
  await world.apply(storedAdapter('sql', world.store.endpoint));
  await world.untilReady('sql');
}, 180_000);

afterAll(async () => {
  await world?.stop();
  await rm(dir, { recursive: true, force: true });
}, 60_000);

describe('push', () => {
  it('brings what PEFT saved into every pod, as the account that may, and prints the digest', async () => {
    await liveAdapter('live');
    const { code, stdout, stderr } = await lora(`push live ${folder('pirate')} --step 1`);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { currentRevision, step } = await world.untilReady('live');
    expect(step).toBe(1);
    expect(stdout).toMatch(
      new RegExp(`^loraadapter.lorikeet.dev/live pushed: ${currentRevision}\n2 of 2 pods serve it: step 1`),
    );
    for (const { ip } of await world.servers()) {
      expect((await ask(ip, 'live', QUESTION)).revision).toBe(currentRevision);
    }
    const again = await lora(`push live ${folder('pirate')} --step 1`);
    expect(again).toMatchObject({
      code: 0,
      stdout: expect.stringContaining(`live unchanged: ${currentRevision}\n`),
    });
  });

  it('takes a bare file, and an account that is named', async () => {
    await liveAdapter('bare');
    const file = join(folder('json'), 'adapter_model.safetensors');
    const { code, stdout } = await lora(`push bare ${file} --account trainer -o json`);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      noop: false,
      pods: [{ state: 'active' }, { state: 'active' }],
    });
  });

  it('refuses what is no adapter before it calls anybody', async () => {
    const bad = brokenAdapters().find(({ name }) => name === 'file-truncated');
    await mkdir(join(dir, 'bad'));
    await writeFile(join(dir, 'bad/adapter_model.safetensors'), bad?.tensors ?? '');
    await writeFile(join(dir, 'bad/adapter_config.json'), bad?.config ?? '');
    await mkdir(join(dir, 'pickle'));
    await writeFile(join(dir, 'pickle/adapter_model.bin'), 'PK');
    const nowhere = { kubeconfig: '/nonexistent' };
    expect(await lora(`push live ${dir}/bad`, nowhere)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('truncated'),
    });
    expect(await lora(`push live ${dir}/pickle`, nowhere)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('safe_serialization=True'),
    });
    expect(await lora(`push live ${dir}/none`, nowhere)).toMatchObject({
      code: 1,
      stderr: `error: there is no file or folder ${dir}/none\n`,
    });
  });

  it('says what to do about what the operator refuses', async () => {
    const old = await lora(`push live ${folder('json')} --step 1`);
    expect(old).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('(step_not_newer)\nPush with a later --step'),
    });
    const stranger = await lora(`push live ${folder('json')} --step 2 --account default`);
    expect(stranger.code).toBe(1);
    expect(stranger.stderr).toContain(
      '(forbidden)\nkubectl create rolebinding default-pushes -n models --clusterrole=lorikeet-pusher',
    );
    expect(await lora(`push sql ${folder('json')}`)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('does not take pushes'),
    });
    expect(await lora(`push none ${folder('json')}`)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('there is no LoraAdapter "none" in namespace models'),
    });
  });
});

describe('status', () => {
  it('shows adapters and pools', async () => {
    const { code, stdout } = await lora('status -o wide');
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^NAME +POOL +READY +PODS +REVISION +STEP +SKEW +FROM +SINCE +SERVED +RANK +SIZE +REASON\n/,
    );
    expect(stdout).toMatch(/\nlive +parrot +True +2\/2 +[0-9a-f]{12} +1 +\S+ ms +models\/trainer /);
    expect(stdout).toMatch(/\nsql +parrot +True +2\/2 .*s3:\/\/adapters\/sql\//);
    expect(stdout).toMatch(/\n\nPOOL +BASE .*\nparrot +parrot +True +2\/2 +\d+ +\d+\/16 /);
    const everywhere = await kubectl(['lora', 'status', '-A', '-o', 'json']);
    expect(JSON.parse(everywhere.stdout)).toMatchObject({
      pools: [{ namespace: NAMESPACE, name: 'parrot' }],
    });
  });

  it.each(['live', 'sql'])('of %s says which pod holds what', async (name) => {
    const { currentRevision } = await world.untilReady(name);
    const { code, stdout, stderr } = await lora(`status ${name} -o json`);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { revisions, ready } = JSON.parse(stdout);
    expect(ready).toBe('True');
    const pods = (await world.servers()).map((pod) => pod.name).sort();
    const current = revisions.filter(({ state }: { state: string }) => state === 'current');
    expect(current.map(({ pod }: { pod: string }) => pod)).toEqual(pods);
    expect(new Set(current.map(({ revision }: { revision: string }) => revision))).toEqual(
      new Set([currentRevision]),
    );
    const people = await lora(`status ${name}`);
    for (const pod of pods)
      expect(people.stdout).toMatch(
        new RegExp(`\n${pod} +${currentRevision?.slice(7, 19)} .* current +slot +yes\n`),
      );
  });

  it('shows what may be seen to one who may only look, and says what is missing', async () => {
    const kubeconfig = await userWith('view');
    const all = await lora('status', { kubeconfig });
    expect(all).toMatchObject({ code: 0, stderr: '', stdout: expect.stringContaining('\nPOOL ') });
    const one = await lora('status live', { kubeconfig });
    expect(one.code).toBe(0);
    expect(one.stdout).toContain('From:       models/trainer');
    expect(one.stderr).toContain('What pods hold is not shown:');
    expect(one.stderr).toContain('--account');
  });
});

it('why says pod by pod where an adapter is', async () => {
  const { code, stdout } = await lora('why sql');
  expect(code).toBe(0);
  expect(stdout).toContain('sql asks for 2 pods of pool models/parrot (placement All) and is placed on 2.\n');
  expect(stdout.match(/ placed +yes /g)).toHaveLength(2);
});

describe('rollout', () => {
  it('status ends with 0, 1 or 3', async () => {
    const done = await lora('rollout status sql');
    expect(done).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^loraadapter "sql" successfully rolled out: 2 of 2 pods serve /),
    });
    await liveAdapter('waiting');
    const failed = await lora('rollout status waiting');
    expect(failed).toMatchObject({ code: 1, stderr: expect.stringContaining('WaitingForPush') });
    expect(failed.stderr).toContain('\nkubectl lora push waiting DIR -n models\n');
    await world.apply(storedAdapter('unreachable', 'http://127.0.0.1:9'));
    await world.untilAdapter(
      'unreachable',
      'tried',
      ({ conditions }) => conditions.Ready?.reason === 'SourceUnreachable',
    );
    const late = await lora('rollout status unreachable --timeout 1s');
    expect(late).toMatchObject({
      code: 3,
      stdout: expect.stringContaining('Waiting for loraadapter "unreachable": '),
    });
    await world.plane.kubectl(['delete', 'lora', 'unreachable', 'waiting', '-n', NAMESPACE]);
  });

  it('history lists what undo goes back to', async () => {
    await liveAdapter('undone');
    const [first, second] = [await pushed('undone', 'pirate', 1), await pushed('undone', 'json', 2)];
    await world.untilReady('undone', second);
    const before = await lora('rollout history undone -o wide');
    expect(
      before.stdout
        .split('\n')
        .slice(1, 3)
        .map((line) => line.split(/ +/).slice(0, 3)),
    ).toEqual([
      [second, '2', 'desired'],
      [first, '1', 'kept'],
    ]);
    const back = await lora('rollout undo undone');
    expect(back).toMatchObject({ code: 0, stderr: '' });
    expect(back.stdout).toContain(
      `undone rolled back from ${second.slice(7, 19)}: ${first}\n2 of 2 pods serve it: step 1`,
    );
    await world.untilReady('undone', first);
    const forth = await lora('rollout undo undone --to step-2');
    expect(forth).toMatchObject({ code: 0, stdout: expect.stringContaining(`: ${second}\n`) });
    expect(await lora('rollout undo undone --to ffff')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('has no revision ffff\nIt has '),
    });
  });

  it('undo of a pushed adapter with --pin goes through the spec', async () => {
    await liveAdapter('pinned');
    const [first, second] = [await pushed('pinned', 'pirate', 1), await pushed('pinned', 'json', 2)];
    await world.untilReady('pinned', second);
    const { code, stdout, stderr } = await lora('rollout undo pinned --pin');
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: `loraadapter.lorikeet.dev/pinned pinned to ${first}\n`,
    });
    const free = /says otherwise: kubectl (.*)\n/.exec(stderr)?.[1] ?? '';
    expect(await lora('rollout status pinned')).toMatchObject({ code: 0 });
    expect((await world.adapter('pinned')).currentRevision).toBe(first);
    await world.plane.kubectl(free.replaceAll("'", '').split(' '));
    expect(await lora(`push pinned ${folder('json')} --step 3`)).toMatchObject({ code: 0 });
  });
});

it('top shows what pods are doing, by pod and by adapter', async () => {
  const [pod] = await world.servers();
  const asking = new AbortController();
  const askOn = async () => {
    while (!asking.signal.aborted) await ask(pod?.ip ?? '', 'sql', QUESTION);
  };
  const asked = askOn();
  const { code, stdout, stderr } = await lora('top parrot --interval 1s -o json').finally(() =>
    asking.abort(),
  );
  await asked;
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const { pods, adapters } = JSON.parse(stdout);
  const busy = pods.find((load: { pod: string }) => load.pod === pod?.name);
  expect(busy.tokensPerSecond).toBeGreaterThan(0);
  expect(busy.slots).toMatchObject({ total: 8 });
  expect(adapters[0]).toMatchObject({ servedName: 'sql', pods: 2, requestsPerMinute: expect.any(Number) });
  expect(adapters[0].promptTokensPerSecond).toBeGreaterThan(0);
  expect((await lora('top')).stdout).toMatch(/^POD +RUNNING +WAITING .*\n(parrot-.*\n){2}\nSERVED NAME .*\n/);
  expect(await lora('top none')).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('there is no ServerPool "none"'),
  });
});

describe('diff', () => {
  it('compares two revisions by the bytes that pods hold, or that a folder has', async () => {
    await liveAdapter('compared');
    const [first, second] = [await pushed('compared', 'sql', 1), await pushed('compared', 'json', 2)];
    await world.untilReady('compared', second);
    const { code, stdout, stderr } = await lora(`diff compared step-1 ${second.slice(7, 15)}`);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain(`One:  ${first.slice(7, 19)}, step 1, 550.9 KiB\n`);
    expect(stdout).toMatch(/\nall +28 +8 -> 4 +3\.94 +5\.36 +168%\n$/);
    const folders = await lora(`diff ${folder('sql')} ${folder('json')}`);
    expect(folders.stdout.split('\n').slice(3)).toEqual(stdout.split('\n').slice(3));
    const same = await lora(`diff compared 2 ${folder('json')} -o json`);
    const { modules } = JSON.parse(same.stdout);
    expect(Math.max(...modules.map(({ distance }: { distance: number }) => distance))).toBeLessThan(1e-5);
  });

  it('says what is not possible for one who may not read the bytes', async () => {
    const kubeconfig = await userWith('view');
    const { code, stdout, stderr } = await lora('diff compared 1 2', { kubeconfig });
    expect(code).toBe(0);
    expect(stdout).toMatch(/MODULE +ONE +TWO\ndown_proj +yes +yes\n/);
    expect(stderr).toContain(
      'Weights are not compared: you may not read the bytes of pods: that takes the Secret models/parrot-admin',
    );
  });
});

describe('as a plugin', () => {
  it('is found by kubectl, and completed by it', async () => {
    await symlink(join(dir, 'bin/kubectl-lora'), join(dir, 'bin/kubectl_complete-lora'));
    expect(await kubectl(['plugin', 'list'])).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('kubectl-lora'),
    });
    const words = async (...args: string[]) =>
      (await kubectl(['__complete', 'lora', ...args])).stdout.split('\n');
    expect(await words('ro')).toEqual(expect.arrayContaining([expect.stringMatching(/^rollout/)]));
    expect(await words('status', '-n', NAMESPACE, 'sq')).toEqual(['sql\ton parrot', ':4', '']);
  });

  it.each(['bash', 'zsh', 'fish'])('has a script for %s', async (shell) => {
    const { code, stdout } = await kubectl(['lora', 'completion', shell]);
    expect(code).toBe(0);
    expect(stdout).toContain('kubectl-lora __complete');
  });

  it('completes in bash', async () => {
    const { stdout } = await kubectl(['lora', 'completion', 'bash']);
    const script = `${stdout}\nCOMP_WORDS=(kubectl-lora rollout st)\nCOMP_CWORD=2\n_kubectl_lora\necho "\${COMPREPLY[@]}"`;
    const env = { PATH: `${dir}/bin:/usr/bin:/bin` };
    expect(await runCommand('bash', ['-c', script], { env })).toBe('status\n');
  });

  it('says which cluster does not answer, and which context is not there', async () => {
    const config = JSON.parse(await readFile(world.plane.kubeconfig, 'utf8'));
    const gone = join(dir, 'gone.kubeconfig');
    config.clusters[0].cluster.server = 'https://127.0.0.1:9';
    await writeFile(gone, JSON.stringify(config), { mode: 0o600 });
    expect(await lora('status', { kubeconfig: gone })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('the API server does not answer'),
    });
    const other = await lora('status --context other');
    expect(other).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('no cluster for context "other"'),
    });
  });

  it('says where the operator is not, and how to name it', async () => {
    const { code, stderr } = await lora('why sql --operator-namespace default');
    expect(code).toBe(1);
    expect(stderr).toContain(
      'there is no Service of an operator (app.kubernetes.io/name=lorikeet) in default\n',
    );
    const [operator] = await world.operators();
    const direct = await lora(`why sql --push-url http://${operator?.ip}:8080`);
    expect(direct.code).toBe(0);
    expect(await lora('why sql', { env: { LORIKEET_OPERATOR_NAMESPACE: SYSTEM } })).toMatchObject({
      code: 0,
    });
  });
});
