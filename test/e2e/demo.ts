import { rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { runCommand } from '../cluster/command.ts';
import { brokenAdapters } from '../support/broken-adapters.ts';
import { eventually } from '../support/eventually.ts';
import { ask, fixtureAdapter, PUSH_PORT, pushUrl, servingUrl, stream } from './client.ts';
import { BUCKET, pushedAdapter, storedAdapter } from './manifests.ts';
import { Narrator } from './narrator.ts';
import type { SeenPod } from './objects.ts';
import { NAMESPACE, PARROT, World } from './world.ts';

const QUESTION = 'List the name of all songs from Lima.';

/** The story of the README, on a real API server: `npm run demo`; `-- --stay` keeps it running to play with. */
class Demo {
  readonly #tell = new Narrator();
  #starting: Promise<World> | null = null;
  #world: World | null = null;
  readonly #files: string[] = [];

  get world(): World {
    if (this.#world === null) throw new Error('the cluster is not started yet');
    return this.#world;
  }

  async run(): Promise<void> {
    await this.#startCluster();
    await this.#applyPool();
    await this.#serveFromStore();
    await this.#pushLive();
    await this.#replacePod();
    await this.#deleteAdapter();
    await this.#refuseBroken();
    this.#tell.end('Every step did what it says');
  }

  async #startCluster(): Promise<void> {
    this.#tell.chapter('A control plane, an S3 server and a node');
    const starting = World.start();
    this.#starting = starting;
    this.#world = await this.#tell.timed(
      'etcd, API server, controllers, scheduler, S3 and node run',
      () => starting,
    );
    for (const name of ['sql', 'pirate']) {
      const { tensors, config } = await fixtureAdapter(name);
      await this.world.store.put(BUCKET, `${name}/adapter_model.safetensors`, tensors);
      await this.world.store.put(BUCKET, `${name}/adapter_config.json`, config);
    }
    this.#tell.say(`s3://${BUCKET}/ holds the adapters sql and pirate`);
    this.#tell.command('kubectl get nodes', await this.world.plane.kubectl(['get', 'nodes']));
  }

  async #applyPool(): Promise<void> {
    this.#tell.chapter(
      'Both charts: the operator, and a pool of two server pods with the base model "parrot"',
    );
    await this.#tell.timed('charts rendered by helm and applied', () => this.world.applyCharts());
    await this.#tell.timed('the operator and two server pods are Ready', () =>
      this.world.untilPodsReady(2, 1),
    );
    await this.#kubectl(['get', 'serverpools,pods', '-n', NAMESPACE]);
  }

  async #serveFromStore(): Promise<void> {
    this.#tell.chapter(
      'The base answers; kubectl apply brings "sql" from the bucket; both pods answer with it',
    );
    await this.#askEverywhere('parrot');
    const sql = storedAdapter('sql', this.world.store.endpoint);
    const file = await this.#file('sql.yaml', stringify(sql));
    await this.#kubectl(['apply', '-f', file], 'sql.yaml');
    await this.#tell.timed('sql is Ready', () => this.world.untilReady('sql'));
    await this.#kubectl(['get', 'loras', '-n', NAMESPACE]);
    await this.#askEverywhere('sql');
  }

  async #pushLive(): Promise<void> {
    this.#tell.chapter('A trainer pushes tensors to "live" over HTTP; a running stream keeps its revision');
    await this.world.apply(pushedAdapter('live'));
    await this.world.allowPush('trainer');
    const token = await this.world.tokenFor('trainer', 'lorikeet-push');
    await this.#tell.timed('"live" is waiting for its first push', () =>
      this.world.untilAdapter('live', 'observed', (adapter) => adapter.conditions.Ready !== undefined),
    );
    await this.#curl(await this.#push('pirate', token, 1));
    await this.#askEverywhere('live');

    const [pod] = await this.world.servers();
    if (!pod) throw new Error('no server pod');
    const before = await ask(pod.ip, 'live', QUESTION);
    const second = await this.#push('json', token, 2);
    const long = stream(pod.ip, 'live', QUESTION, { ignore_eos: true, max_tokens: 2_000 });
    await long.started;
    this.#tell.say('a stream of 2,000 tokens has begun');
    await this.#curl(second);
    if (long.ended) throw new Error('the stream ended before the swap');
    this.#tell.say('it still runs');
    await this.#askEverywhere('live');
    const { text, revision } = await this.#tell.timed('the stream ended', () => long.done);
    const after = await ask(pod.ip, 'live', QUESTION);
    this.#tell.say(`it began: ${text.slice(0, 60)}`);
    this.#tell.say(
      `it was made by ${short(revision)} from end to end; new requests get ${short(after.revision)}`,
    );
    if (revision !== before.revision) throw new Error('the stream did not finish on its old revision');
  }

  async #replacePod(): Promise<void> {
    this.#tell.chapter('A pod is killed; its replacement has every adapter before it is Ready');
    const before = await this.world.servers();
    const [victim] = before;
    if (!victim) throw new Error('no server pod');
    await this.world.node.removePodAbruptly(NAMESPACE, victim.name);
    this.#tell.say(`${victim.name} is gone`);
    const replacement = await this.#tell.timed('its replacement is Ready', () =>
      eventually('the replacement is ready', { timeoutMs: 60_000, everyMs: 50 }, async () => {
        const isNew = (pod: SeenPod) => before.every(({ uid }) => uid !== pod.uid);
        return (await this.world.servers()).find((pod) => pod.ready && isNew(pod));
      }),
    );
    for (const model of ['sql', 'live']) {
      const { text, revision } = await ask(replacement.ip, model, QUESTION);
      this.#tell.say(`${replacement.name}, ${model}: ${text}   [${short(revision)}]`);
      if (revision === null) throw new Error(`the replacement answers ${model} without its adapter`);
    }
  }

  async #deleteAdapter(): Promise<void> {
    this.#tell.chapter('kubectl delete: the adapter is 404 on every pod, the base still answers');
    await this.#kubectl(['delete', 'lora', 'sql', '-n', NAMESPACE]);
    for (const pod of await this.world.servers()) {
      const { status, text } = await ask(pod.ip, 'sql', QUESTION);
      this.#tell.say(`${pod.name}, sql: ${status} ${text}`);
      if (status !== 404) throw new Error(`expected 404 for a deleted adapter but received ${status}`);
    }
    await this.#askEverywhere('parrot');
  }

  async #refuseBroken(): Promise<void> {
    this.#tell.chapter('A bad adapter is refused, with a reason; nothing else notices');
    const bad = brokenAdapters().find(({ name }) => name === 'rank-not-config');
    if (!bad) throw new Error('no such broken adapter');
    await this.world.store.put(BUCKET, 'bad/adapter_model.safetensors', bad.tensors);
    await this.world.store.put(BUCKET, 'bad/adapter_config.json', bad.config);
    await this.world.apply(storedAdapter('bad', this.world.store.endpoint));
    const seen = await this.#tell.timed('"bad" is refused', () =>
      this.world.untilAdapter('bad', 'refused', ({ conditions }) => conditions.Ready?.status === 'False'),
    );
    const verdict = Object.values(seen.conditions).find(({ status }) => status === 'False');
    this.#tell.say(`${verdict?.reason}: ${verdict?.message}`);
    await this.#kubectl(['get', 'loras', '-n', NAMESPACE]);
    await this.#askEverywhere('live');
  }

  async #kubectl(args: string[], file?: string): Promise<void> {
    const shown = args.map((arg) => (file !== undefined && arg.endsWith(file) ? file : arg));
    this.#tell.command(`kubectl ${shown.join(' ')}`, await this.world.plane.kubectl(args));
  }

  async #askEverywhere(model: string): Promise<void> {
    for (const pod of await this.world.servers()) {
      const { status, text, revision } = await ask(pod.ip, model, QUESTION);
      if (status !== 200) throw new Error(`${pod.name} answers ${model} with ${status}: ${text}`);
      this.#tell.say(`${pod.name}, ${model}: ${text}   [${short(revision)}]`);
    }
  }

  /** The arguments of `curl -T`, as a trainer's shell script would have them. */
  async #push(adapter: string, token: string, step: number): Promise<{ args: string[]; shown: string }> {
    const [operator] = await this.world.operators();
    if (!operator) throw new Error('no operator pod');
    const url = pushUrl(operator.ip, NAMESPACE, 'live');
    const { config } = await fixtureAdapter(adapter);
    const tensors = join(PARROT, 'adapters', adapter, 'adapter_model.safetensors');
    const tokenFile = await this.#file('token-header', `Authorization: Bearer ${token}`);
    const headers = ['-H', `@${tokenFile}`, '-H', `X-Lora-Config: ${config.toString('base64url')}`];
    const shown = [
      `curl -T ${adapter}/adapter_model.safetensors -H "Authorization: Bearer $TOKEN" \\`,
      `     -H "X-Lora-Config: $(basenc --base64url -w0 ${adapter}/adapter_config.json)" -H "X-Lora-Step: ${step}" \\`,
      `     ${url}`,
    ];
    return {
      args: ['-sS', '--fail-with-body', '-T', tensors, ...headers, '-H', `X-Lora-Step: ${step}`, url],
      shown: shown.join('\n'),
    };
  }

  async #curl({ args, shown }: { args: string[]; shown: string }): Promise<void> {
    this.#tell.command(shown, await runCommand('curl', args));
  }

  async #file(name: string, text: string): Promise<string> {
    const path = join(tmpdir(), `lorikeet-demo-${process.pid}-${name}`);
    this.#files.push(path);
    await writeFile(path, text, { mode: 0o600 });
    return path;
  }

  async printPlaces(): Promise<void> {
    const servers = await this.world.servers();
    const [operator] = await this.world.operators();
    const { plane, store } = this.world;
    this.#tell.chapter('It goes on running');
    this.#tell.say(`export KUBECONFIG=${plane.kubeconfig}`);
    for (const { name, ip } of servers) this.#tell.say(`serving API of ${name}: ${servingUrl(ip)}/v1/models`);
    this.#tell.say(
      `push endpoint: http://${operator?.ip}:${PUSH_PORT}/v1/namespaces/${NAMESPACE}/adapters/live/revisions`,
    );
    this.#tell.say(
      `a trainer's token: kubectl create token trainer -n ${NAMESPACE} --audience lorikeet-push`,
    );
    this.#tell.say(
      `S3: ${store.endpoint}, access key ${store.accessKeyId}, secret key ${store.secretAccessKey}`,
    );
    this.#tell.say('Ctrl-C ends it and leaves nothing behind.');
  }

  async stop(): Promise<void> {
    await Promise.all(this.#files.map((file) => rm(file, { force: true })));
    const world = await this.#starting?.catch(() => null);
    await world?.stop();
  }
}

function short(revision: string | null): string {
  return revision === null ? 'base' : revision.slice(0, 'sha256:'.length + 12);
}

const demo = new Demo();
const interrupted = Promise.withResolvers<'interrupted'>();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => interrupted.resolve('interrupted'));
}

const story = demo.run().then(async () => {
  if (!process.argv.includes('--stay')) return 'told';
  await demo.printPlaces();
  return await interrupted.promise;
});
// A story that is cut short by Ctrl-C fails somewhere later; that is not news.
story.catch(() => {});
try {
  const outcome = await Promise.race([story, interrupted.promise]);
  process.exitCode = outcome === 'told' || process.argv.includes('--stay') ? 0 : 130;
} catch (error) {
  process.stderr.write(`\nthe demo failed: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = 1;
} finally {
  await demo.stop();
}
// What a cut-short story still waits for must not keep the process.
process.exit();
