import { createHash } from 'node:crypto';
import { cp, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { revisionDigest } from '../../../server/contract/digest.ts';
import { Choices } from './completions.ts';

const SAMPLES_PER_VERSION_MAX = 16;
const FAULTS_MAX = 20;

const Load = z.object({ lora_name: z.string(), lora_path: z.string() });
const Completion = z.object({ model: z.string(), prompt: z.array(z.number()), temperature: z.number() });
const Span = z.object({ revision: z.string() });
const Lora = z.object({ name: z.string(), revision: z.string(), spans: z.array(Span) });
const Answer = z.object({ lora: Lora.nullable(), choices: Choices });

/** What came back for one request. */
export interface Reply {
  status: number;
  /** The header x-lora-revision. */
  revision: string | null;
  body: string;
  ms: number;
}

/** One answer that a trainer got. */
export interface Sample {
  /** The body of its request: the same one brings the same tokens. */
  request: string;
  version: string;
  /** A copy of what the trainer wrote. */
  adapterDir: string;
  temperature: number;
  prompt: number[];
  tokens: number[];
  logprobs: number[];
}

/** Which versions are copied, with some samples of each: the trainer removes its own. */
export interface Keep {
  dir: string;
  everyVersions: number;
}

interface Version {
  digest: string;
  /** What reading its files alone took. */
  readMs: number;
}

export interface Recording {
  /** Answers with tokens, by what their request named. */
  ofVersions: number;
  ofBase: number;
  versions: number;
  /** Answers with tokens that another revision made than the request named; the first few in words. */
  wrong: number;
  faults: string[];
  /** Other answers than 200 to a completion or a load, by status. */
  refused: Map<number, number>;
  loadMs: number[];
  readMs: number[];
  /** Of the versions that are kept. */
  samples: Sample[];
}

/**
 * What a trainer asks of a server and what it gets. Which bytes a version is, the trainer's own files say, not the server;
 * so an answer is right where its revision is the digest of the files that the trainer loaded under the name it asks for.
 */
export class Recorder {
  readonly #base: string;
  readonly #keep: Keep;
  readonly #servedAs: (version: string) => string;
  readonly #versions = new Map<string, Promise<Version>>();
  readonly #samples = new Map<string, Sample[]>();
  readonly #pending = new Set<Promise<void>>();
  readonly #recording: Recording = {
    ofVersions: 0,
    ofBase: 0,
    versions: 0,
    wrong: 0,
    faults: [],
    refused: new Map(),
    loadMs: [],
    readMs: [],
    samples: [],
  };

  /** `servedAs`: what answers call a version's adapter. */
  constructor(base: string, keep: Keep, servedAs = (version: string) => version) {
    this.#base = base;
    this.#keep = keep;
    this.#servedAs = servedAs;
  }

  /** Call the result with the reply, before the trainer gets it: it may ask for a version as soon as it is loaded. */
  asked(path: string, request: string): (reply: Reply) => void {
    if (path === '/v1/load_lora_adapter') return (reply) => this.#loaded(request, reply);
    if (path !== '/v1/completions') return () => {};
    const asked = Completion.parse(JSON.parse(request));
    const version = this.#versions.get(asked.model);
    return (reply) => this.#track(this.#answered({ ...asked, request }, version, reply));
  }

  /** All that was asked until now. */
  async recording(): Promise<Recording> {
    await Promise.all(this.#pending);
    return { ...this.#recording, samples: [...this.#samples.values()].flat() };
  }

  #loaded(request: string, { status, ms }: Reply): void {
    if (status !== 200) {
      this.#refused(status);
      return;
    }
    const { lora_name: name, lora_path: dir } = Load.parse(JSON.parse(request));
    const version = readVersion(dir);
    this.#versions.set(name, version);
    if (this.#recording.versions % this.#keep.everyVersions === 0) {
      this.#samples.set(name, []);
      this.#track(cp(dir, this.#keptAt(name), { recursive: true }));
    }
    this.#recording.versions += 1;
    this.#recording.loadMs.push(ms);
    this.#track(version.then(({ readMs }) => void this.#recording.readMs.push(readMs)));
  }

  #keptAt(name: string): string {
    return join(this.#keep.dir, name);
  }

  async #answered(
    asked: z.infer<typeof Completion> & { request: string },
    loaded: Promise<Version> | undefined,
    { status, revision, body }: Reply,
  ): Promise<void> {
    if (status !== 200) {
      this.#refused(status);
      return;
    }
    const { lora, choices } = Answer.parse(JSON.parse(body));
    const told = new Set([revision, lora?.revision ?? null]);
    for (const span of lora?.spans ?? []) told.add(span.revision);
    if (asked.model === this.#base) {
      this.#recording.ofBase += 1;
      if (lora !== null || revision !== null) this.#wrong(`the base: received ${[...told].join(', ')}`);
      return;
    }
    this.#recording.ofVersions += 1;
    const version = await loaded;
    const isRight =
      version !== undefined &&
      lora?.name === this.#servedAs(asked.model) &&
      told.size === 1 &&
      told.has(version.digest);
    if (!isRight) {
      this.#wrong(
        `${asked.model}: expected ${version?.digest ?? 'none'} but received ${[...told].join(', ')}`,
      );
      return;
    }
    const samples = this.#samples.get(asked.model);
    const [choice] = choices;
    if (choice === undefined || samples === undefined || samples.length === SAMPLES_PER_VERSION_MAX) return;
    const { request, prompt, temperature } = asked;
    const { token_ids: tokens, logprobs } = choice;
    samples.push({
      ...{ request, prompt, temperature, tokens },
      version: asked.model,
      adapterDir: this.#keptAt(asked.model),
      logprobs: logprobs.token_logprobs,
    });
  }

  #wrong(fault: string): void {
    this.#recording.wrong += 1;
    if (this.#recording.faults.length < FAULTS_MAX) this.#recording.faults.push(fault);
  }

  #refused(status: number): void {
    const { refused } = this.#recording;
    refused.set(status, (refused.get(status) ?? 0) + 1);
  }

  /** What cannot be read counts as wrong. */
  #track(work: Promise<void>): void {
    const tracked = work
      .catch((error) => this.#wrong(String(error)))
      .finally(() => this.#pending.delete(tracked));
    this.#pending.add(tracked);
  }
}

async function readVersion(dir: string): Promise<Version> {
  const startedMs = performance.now();
  const [config, tensors] = await Promise.all(
    ['adapter_config.json', 'adapter_model.safetensors'].map((name) => readFile(join(dir, name))),
  );
  const readMs = performance.now() - startedMs;
  const tensorsSha256 = createHash('sha256')
    .update(tensors as Buffer)
    .digest('hex');
  return { digest: revisionDigest(JSON.parse(String(config)), tensorsSha256), readMs };
}
