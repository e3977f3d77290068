import { setTimeout as delay } from 'node:timers/promises';
import {
  ActivateReply,
  type ActivateRequest,
  type AdapterState,
  PodState,
  PutAdapterReply,
  type RollbackRequest,
  StageReply,
} from '../contract/adapter-api.ts';
import { type AdapterMaker, headersOf, type Upload } from './adapters.ts';
import type { Answer, Client } from './client.ts';
import { requireAnswer, requireThat, Unmet } from './expectations.ts';
import { callInPart, type PartialCall } from './partial-call.ts';

/** No adapter but the suite's has such a name. */
export const PREFIX = 'lorikeet-conformance-';

type Headers = Record<string, string>;

export const path = {
  state: '/lora/v1/state',
  watch: '/lora/v1/watch',
  seeded: '/lora/v1/seeded',
  adapter: (name: string) => `/lora/v1/adapters/${encodeURIComponent(name)}`,
  revisions: (name: string) => `${path.adapter(name)}/revisions`,
  revision: (name: string, digest: string) => `${path.revisions(name)}/${encodeURIComponent(digest)}`,
  activate: (name: string) => `${path.adapter(name)}/activate`,
  rollback: (name: string) => `${path.adapter(name)}/rollback`,
  put: (name: string) => `/v1/adapters/${encodeURIComponent(name)}`,
} as const;

export interface BenchOptions {
  admin: Client;
  /** Without a token; the same server. */
  stranger: Client;
  serving: Client | null;
  adapters: AdapterMaker;
  /** The check's name, which is in those of its adapters. */
  label: string;
  /** As it was before the first check. */
  before: PodState;
  /** How long what should come soon is waited for. */
  patienceMs: number;
}

/** What a check works with: the server, adapters that fit it, and names that are taken away after the check. */
export class Bench {
  readonly admin: Client;
  readonly stranger: Client;
  readonly adapters: AdapterMaker;
  readonly before: PodState;
  readonly patienceMs: number;
  readonly #label: string;
  readonly #serving: Client | null;
  readonly #names: string[] = [];

  constructor(options: BenchOptions) {
    this.admin = options.admin;
    this.stranger = options.stranger;
    this.adapters = options.adapters;
    this.before = options.before;
    this.patienceMs = options.patienceMs;
    this.#label = options.label;
    this.#serving = options.serving;
  }

  /** Of checks that need it. */
  get serving(): Client {
    if (this.#serving === null) throw new Error('The check does not say that it needs the serving API');
    return this.#serving;
  }

  /** One that no adapter has. */
  name(rest = ''): string {
    return this.own(`${PREFIX}${this.#label}-${this.#names.length + 1}${rest}`);
  }

  /** Whatever comes to have that name is taken away after the check. */
  own(name: string): string {
    this.#names.push(name);
    return name;
  }

  async state(): Promise<PodState> {
    return requireAnswer(await this.admin.call('GET', path.state), PodState);
  }

  async stateOf(name: string): Promise<AdapterState | undefined> {
    return (await this.state()).adapters.find((adapter) => adapter.name === name);
  }

  /** Of that adapter, which must be there. */
  async stateOfHeld(name: string): Promise<AdapterState> {
    const found = await this.stateOf(name);
    requireThat(found !== undefined, `${name} among the adapters of GET ${path.state}`, 'none of that name');
    return found;
  }

  async heldDigests(name: string): Promise<string[]> {
    return ((await this.stateOf(name))?.revisions ?? []).map(({ digest }) => digest);
  }

  upload(name: string, upload: Upload, headers: Headers = {}): Promise<Answer> {
    const all = { ...headersOf(upload), ...headers };
    return this.admin.call('POST', path.revisions(name), { headers: all, body: upload.body });
  }

  async stage(name: string, upload: Upload, headers: Headers = {}): Promise<StageReply> {
    return requireAnswer(await this.upload(name, upload, headers), StageReply);
  }

  /** Stages a new content and says its digest. */
  async stageNew(name: string, headers: Headers = {}): Promise<string> {
    const upload = this.adapters.make();
    await this.stage(name, upload, headers);
    return upload.digest;
  }

  putOf(name: string, upload: Upload, headers: Headers = {}): Promise<Answer> {
    const all = { ...headersOf(upload), ...headers };
    return this.admin.call('PUT', path.put(name), { headers: all, body: upload.body });
  }

  async put(name: string, upload: Upload, headers: Headers = {}): Promise<PutAdapterReply> {
    return requireAnswer(await this.putOf(name, upload, headers), PutAdapterReply);
  }

  /** Makes a new content current and says its digest. */
  async putNew(name: string, headers: Headers = {}): Promise<string> {
    const upload = this.adapters.make();
    await this.put(name, upload, headers);
    return upload.digest;
  }

  activateOf(name: string, body: ActivateRequest, headers: Headers = {}): Promise<Answer> {
    return this.admin.call('POST', path.activate(name), { headers, body });
  }

  async activate(name: string, body: ActivateRequest, headers: Headers = {}): Promise<ActivateReply> {
    return requireAnswer(await this.activateOf(name, body, headers), ActivateReply);
  }

  rollbackOf(name: string, body: RollbackRequest = {}, headers: Headers = {}): Promise<Answer> {
    return this.admin.call('POST', path.rollback(name), { headers, body });
  }

  async rollback(name: string, body: RollbackRequest = {}): Promise<ActivateReply> {
    return requireAnswer(await this.rollbackOf(name, body), ActivateReply);
  }

  inPart(call: PartialCall, client = this.admin): Promise<Answer | null> {
    return callInPart(client, call, this.patienceMs);
  }

  /** Asks until it is so. */
  async eventually(expected: string, isMet: () => Promise<boolean>): Promise<void> {
    const endMs = performance.now() + this.patienceMs;
    while (!(await isMet())) {
      if (performance.now() > endMs) throw new Unmet(`${expected} within ${this.patienceMs} ms`, 'not so');
      await delay(50);
    }
  }

  /** Takes away what the check made. */
  async clean(): Promise<void> {
    for (const name of this.#names) await this.admin.call('DELETE', path.adapter(name));
  }
}
