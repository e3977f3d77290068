import { rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { runCommand } from '../../cluster/command.ts';
import { brokenAdapters } from '../../support/broken-adapters.ts';
import { eventually } from '../../support/eventually.ts';
import {
  type Answer,
  askAt,
  fixtureAdapter,
  PUSH_PORT,
  pushPath,
  SERVING_PORT,
  streamAt,
} from '../client.ts';
import type { Cluster } from '../cluster.ts';
import { loraAdapter } from '../manifests.ts';
import { Narrator } from '../narrator.ts';
import type { SeenPod } from '../objects.ts';
import { PARROT } from '../world.ts';
import type { Place } from './place.ts';

/** Of a cluster that has to pull images first. */
const READY_TIMEOUT_MS = 300_000;
const QUESTION = 'List the name of all songs from Lima.';

/** The story of the README, on a real API server. */
export class Story {
  readonly #tell = new Narrator();
  readonly #place: Place;
  readonly #files: string[] = [];
  #sql: object = {};

  constructor(place: Place) {
    this.#place = place;
  }

  get #cluster(): Cluster {
    return this.#place.cluster;
  }

  get #namespace(): string {
    return this.#cluster.namespaces.models;
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
    await this.#place.start(this.#tell);
    this.#sql = await this.#place.store('sql', await fixtureAdapter('sql'));
    this.#tell.say(`${this.#place.storeName} holds the adapter sql`);
    this.#tell.command('kubectl get nodes', await this.#cluster.kubectl(['get', 'nodes']));
  }

  async #applyPool(): Promise<void> {
    this.#tell.chapter(
      'Both charts: the operator, and a pool of two server pods with the base model "parrot"',
    );
    await this.#tell.timed('charts rendered by helm and applied', () => this.#place.applyCharts());
    await this.#tell.timed('the operator and two server pods are Ready', () =>
      this.#cluster.untilPodsReady(2, 1, READY_TIMEOUT_MS),
    );
    await this.#kubectl(['get', 'serverpools,pods', '-n', this.#namespace]);
  }

  async #serveFromStore(): Promise<void> {
    this.#tell.chapter('The base answers; kubectl apply brings "sql" from there; both pods answer with it');
    await this.#askEverywhere('parrot');
    const file = await this.#file('sql.yaml', stringify(this.#sql));
    await this.#kubectl(['apply', '-f', file], 'sql.yaml');
    await this.#tell.timed('sql is Ready', () => this.#cluster.untilReady('sql'));
    await this.#kubectl(['get', 'loras', '-n', this.#namespace]);
    await this.#askEverywhere('sql');
  }

  async #pushLive(): Promise<void> {
    this.#tell.chapter('A trainer pushes tensors to "live" over HTTP; a running stream keeps its revision');
    await this.#cluster.apply(loraAdapter('live', { push: {} }, {}, this.#namespace));
    await this.#cluster.allowPush('trainer');
    const token = await this.#cluster.tokenFor('trainer', 'lorikeet-push');
    await this.#tell.timed('"live" is waiting for its first push', () =>
      this.#cluster.untilAdapter('live', 'observed', (adapter) => adapter.conditions.Ready !== undefined),
    );
    await this.#curl(await this.#push('pirate', token, 1));
    await this.#askEverywhere('live');

    const [pod] = await this.#cluster.servers();
    if (!pod) throw new Error('no server pod');
    const before = await this.#ask(pod, 'live');
    const second = await this.#push('json', token, 2);
    const long = streamAt(await this.#place.reach(pod, SERVING_PORT), 'live', QUESTION, {
      ignore_eos: true,
      max_tokens: 2_000,
    });
    await long.started;
    this.#tell.say('a stream of 2,000 tokens has begun');
    await this.#curl(second);
    if (long.ended) throw new Error('the stream ended before the swap');
    this.#tell.say('it still runs');
    await this.#askEverywhere('live');
    const { text, revision } = await this.#tell.timed('the stream ended', () => long.done);
    const after = await this.#ask(pod, 'live');
    this.#tell.say(`it began: ${text.slice(0, 60)}`);
    this.#tell.say(
      `it was made by ${short(revision)} from end to end; new requests get ${short(after.revision)}`,
    );
    if (revision !== before.revision) throw new Error('the stream did not finish on its old revision');
  }

  async #replacePod(): Promise<void> {
    this.#tell.chapter('A pod is killed; its replacement has every adapter before it is Ready');
    const before = await this.#cluster.servers();
    const [victim] = before;
    if (!victim) throw new Error('no server pod');
    await this.#place.removePod(victim.name);
    this.#tell.say(`${victim.name} is gone`);
    const replacement = await this.#tell.timed('its replacement is Ready', () =>
      eventually('the replacement is ready', { timeoutMs: 60_000, everyMs: 50 }, async () => {
        const isNew = (pod: SeenPod) => before.every(({ uid }) => uid !== pod.uid);
        return (await this.#cluster.servers()).find((pod) => pod.ready && isNew(pod));
      }),
    );
    for (const model of ['sql', 'live']) {
      const { text, revision } = await this.#ask(replacement, model);
      this.#tell.say(`${replacement.name}, ${model}: ${text}   [${short(revision)}]`);
      if (revision === null) throw new Error(`the replacement answers ${model} without its adapter`);
    }
  }

  async #deleteAdapter(): Promise<void> {
    this.#tell.chapter('kubectl delete: the adapter is 404 on every pod, the base still answers');
    await this.#kubectl(['delete', 'lora', 'sql', '-n', this.#namespace]);
    for (const pod of await this.#cluster.servers()) {
      const { status, text } = await this.#ask(pod, 'sql');
      this.#tell.say(`${pod.name}, sql: ${status} ${text}`);
      if (status !== 404) throw new Error(`expected 404 for a deleted adapter but received ${status}`);
    }
    await this.#askEverywhere('parrot');
  }

  async #refuseBroken(): Promise<void> {
    this.#tell.chapter('A bad adapter is refused, with a reason; nothing else notices');
    const bad = brokenAdapters().find(({ name }) => name === 'rank-not-config');
    if (!bad) throw new Error('no such broken adapter');
    await this.#cluster.apply(await this.#place.store('bad', bad));
    const seen = await this.#tell.timed('"bad" is refused', () =>
      this.#cluster.untilAdapter('bad', 'refused', ({ conditions }) => conditions.Ready?.status === 'False'),
    );
    const verdict = Object.values(seen.conditions).find(({ status }) => status === 'False');
    this.#tell.say(`${verdict?.reason}: ${verdict?.message}`);
    await this.#kubectl(['get', 'loras', '-n', this.#namespace]);
    await this.#askEverywhere('live');
  }

  async #ask(pod: SeenPod, model: string): Promise<Answer> {
    return await askAt(await this.#place.reach(pod, SERVING_PORT), model, QUESTION);
  }

  async #kubectl(args: string[], file?: string): Promise<void> {
    const shown = args.map((arg) => (file !== undefined && arg.endsWith(file) ? file : arg));
    this.#tell.command(`kubectl ${shown.join(' ')}`, await this.#cluster.kubectl(args));
  }

  async #askEverywhere(model: string): Promise<void> {
    for (const pod of await this.#cluster.servers()) {
      const { status, text, revision } = await this.#ask(pod, model);
      if (status !== 200) throw new Error(`${pod.name} answers ${model} with ${status}: ${text}`);
      this.#tell.say(`${pod.name}, ${model}: ${text}   [${short(revision)}]`);
    }
  }

  /** The arguments of `curl -T`, as a trainer's shell script would have them. */
  async #push(adapter: string, token: string, step: number): Promise<{ args: string[]; shown: string }> {
    const [operator] = await this.#cluster.operators();
    if (!operator) throw new Error('no operator pod');
    const base = await this.#place.reach(operator, PUSH_PORT);
    const url = base + pushPath(this.#namespace, 'live');
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
    const servers = await this.#cluster.servers();
    const [operator] = await this.#cluster.operators();
    this.#tell.chapter('It goes on running');
    this.#place.tellPlaces(this.#tell);
    for (const pod of servers) {
      const url = await this.#place.reach(pod, SERVING_PORT);
      this.#tell.say(`serving API of ${pod.name}: ${url}/v1/models`);
    }
    if (operator) {
      const url = await this.#place.reach(operator, PUSH_PORT);
      this.#tell.say(`push endpoint: ${url}${pushPath(this.#namespace, 'live')}`);
    }
    this.#tell.say(
      `a trainer's token: kubectl create token trainer -n ${this.#namespace} --audience lorikeet-push`,
    );
    this.#tell.say('Ctrl-C ends it and leaves nothing behind.');
  }

  async stop(): Promise<void> {
    await Promise.all(this.#files.map((file) => rm(file, { force: true })));
    await this.#place.stop(this.#tell);
  }
}

function short(revision: string | null): string {
  return revision === null ? 'base' : revision.slice(0, 'sha256:'.length + 12);
}
