import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { Agent, fetch } from 'undici';
import { PodState } from '../../server/contract/adapter-api.ts';
import { eventually } from '../support/eventually.ts';
import { type ServerProcess, startServer } from '../support/server-process.ts';
import { Pushes } from './rl-pushes.ts';
import { type Answer, type Asked, KINDS, LastChunk, whatIsWrong } from './rl-requests.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const PARROT = join(ROOT, 'test/fixtures/parrot');
const PROMPTS = 6;
/** Beyond one block of the KV cache, so that there is something to share. */
const PROMPT_TOKENS = 40;
const REST_MS = 5000;
/** Beyond the step in which a swap happens. */
const STALLED_STEPS_MAX = 2;
/** What a heap of JavaScript takes before it is cleaned. */
const GROWTH_MEGABYTES_MAX = 160;
const ROLLBACK_EVERY = 25;
const SAY_EVERY = 100;
const MAX_TOKENS = [12, 30, 90];

export interface Options {
  /** At least; they go on until each stream has had so many answers. */
  pushes: number;
  answers: number;
  streams: number;
  slots: number;
  say?: (line: string) => void;
}

export interface Report {
  answered: Record<string, number>;
  refused: number;
  moves: number;
  /** Engine steps for which a request waited for its next token while others got theirs, at most. */
  stalledSteps: number;
  preemptions: number;
  /** What was wrong, the first of it. */
  wrong: string[];
  /** Of the server, before the first push and at the end, with all adapters gone. */
  fds: [number, number];
  left: { slots: number; pages: number; hostBytes: number; adapters: number; kvUsage: number };
  /** Resident memory after a fifth of the pushes, and after the last. */
  megabytes: [number, number];
}

/**
 * An RL loop without pauses: a trainer pushes as fast as it can while streams with all policies run, and every token is
 * held against the poison of the revision that the answer names for it.
 */
export async function runRl(options: Options): Promise<Report> {
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-rl-'));
  const stalls = join(dir, 'stalls');
  await writeFile(stalls, '');
  const server = await startServer(
    [
      ...['--model', PARROT, '--slots', String(options.slots), '--log-level', 'warn'],
      ...['--max-batch', '64', '--host-bytes', '64Mi', '--kv-bytes', '16Mi'],
    ],
    {
      LORIKEET_WATCHED: resolve(process.env.LORIKEET_ADDON ?? join(ROOT, 'build/addon/lorikeet.node')),
      LORIKEET_ADDON: join(import.meta.dirname, 'watched-addon.cjs'),
      LORIKEET_STALLS: stalls,
    },
  );
  try {
    return await new Rl(server, options).run(stalls);
  } finally {
    await server.stop();
    await rm(dir, { recursive: true });
  }
}

/** Empty where the soak held what it is to hold. */
export function whatFailed({ wrong, stalledSteps, preemptions, left, fds, megabytes }: Report): string[] {
  const failed = wrong.slice(0, 10);
  if (preemptions > 0) failed.push(`${preemptions} requests were preempted: --kv-bytes is too small`);
  if (stalledSteps > STALLED_STEPS_MAX) failed.push(`a request waited ${stalledSteps} engine steps`);
  if (Object.values(left).some((value) => value !== 0)) failed.push(`left: ${JSON.stringify(left)}`);
  if (fds[1] > fds[0]) failed.push(`${fds[0]} files were open, and ${fds[1]} are`);
  if (megabytes[1] - megabytes[0] > GROWTH_MEGABYTES_MAX) failed.push(`from ${megabytes.join(' to ')} MB`);
  return failed;
}

class Rl {
  readonly #server: ServerProcess;
  readonly #options: Options;
  readonly #agent = new Agent({ connections: null });
  readonly #pushes: Pushes;
  readonly #answered: Record<string, number> = {};
  readonly #wrong: string[] = [];
  #refused = 0;
  #moves = 0;
  #turns = 0;
  #onToken: (asked: Asked, ended: Promise<void>) => void = () => undefined;

  constructor(server: ServerProcess, options: Options) {
    this.#server = server;
    this.#options = options;
    this.#pushes = new Pushes(server, this.#agent);
  }

  async run(stalls: string): Promise<Report> {
    const { streams } = this.#options;
    const fdsBefore = await this.#fds();
    await this.#pushes.pushJudge();
    await this.#pushes.push(1);
    await this.#requirePoison();
    const running = Array.from({ length: streams }, (_, index) => this.#stream(index));
    const warm = await this.#pushAll();
    this.#pushes.ended = true;
    await Promise.all(running);
    const megabytes: [number, number] = [warm, await this.#megabytes()];
    const preemptions = await this.#metric('lorikeet_preemptions_total');
    await this.#removeAll();
    const left = await this.#left();
    await this.#agent.close();
    const stalled = (await readFile(stalls, 'utf8')).trim().split('\n').at(-1);
    return {
      answered: this.#answered,
      refused: this.#refused,
      moves: this.#moves,
      stalledSteps: Number(stalled),
      preemptions,
      wrong: this.#wrong,
      fds: [
        fdsBefore,
        await untilRest(
          () => this.#fds(),
          (fds) => fds <= fdsBefore,
        ),
      ],
      left,
      megabytes,
    };
  }

  /** Returns the resident memory after a fifth of the pushes that there have to be. */
  async #pushAll(): Promise<number> {
    const { pushes, answers, streams, say = () => undefined } = this.#options;
    let warm = 0;
    for (let step = 2; step <= pushes || this.#turns < answers * streams; step += 1) {
      await this.#pushes.push(step);
      if (step % ROLLBACK_EVERY === 0) await this.#rollBack(step);
      if (step === Math.ceil(pushes / 5)) warm = await this.#megabytes();
      if (step % SAY_EVERY === 0)
        say(`${step} pushes, ${this.#turns} answers, ${await this.#megabytes()} MB`);
    }
    return warm;
  }

  /** While a stream runs that expects no older step: it is to be refused before it says what is older. */
  async #rollBack(step: number): Promise<void> {
    const ended = await new Promise<Promise<void>>((found) => {
      this.#onToken = ({ minStep, moves }, untilEnd) => {
        if (moves === 'always' && minStep === step) found(untilEnd);
      };
    });
    this.#onToken = () => undefined;
    await this.#pushes.rollBack();
    await ended;
  }

  /** One request after the other, each of another kind, until the last push. */
  async #stream(index: number): Promise<void> {
    const kinds = Object.entries(KINDS);
    for (let turn = index; !this.#pushes.ended; turn += 1) {
      const [kind, ask] = kinds[turn % kinds.length] as (typeof kinds)[number];
      const wanted = ask(this.#pushes);
      const { live, teacher } = this.#pushes;
      const after = (wanted.model === 'live' ? live : teacher).activation;
      const asked: Asked = { kind, ...wanted, after };
      const ended = Promise.withResolvers<void>();
      const answer = await this.#ask(asked, turn, () => this.#onToken(asked, ended.promise));
      ended.resolve();
      this.#turns += 1;
      const wrong = whatIsWrong(asked, answer, this.#pushes);
      if (wrong !== null) this.#wrong.push(`${kind}: ${wrong}`);
      if (answer.status !== 200) this.#refused += 1;
      else this.#answered[kind] = (this.#answered[kind] ?? 0) + 1;
      this.#moves += (answer.last?.lora.spans.length ?? 1) - 1;
    }
  }

  async #ask(
    { model, lora, cacheSalt }: Asked,
    turn: number,
    onToken: () => void = () => undefined,
  ): Promise<Answer> {
    const response = await fetch(`${this.#server.serving}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      dispatcher: this.#agent,
      body: JSON.stringify({
        model,
        lora,
        ...(cacheSalt === undefined ? {} : { cache_salt: cacheSalt }),
        prompt: Array.from(
          { length: PROMPT_TOKENS },
          (_, i) => 10 + (((turn % PROMPTS) * 97 + i * 13) % 900),
        ),
        // Not always the same for a kind.
        max_tokens: MAX_TOKENS[(turn + Math.floor(turn / Object.keys(KINDS).length)) % MAX_TOKENS.length],
        temperature: turn % 2,
        ignore_eos: true,
        return_token_ids: true,
        stream: true,
      }),
    });
    const header = response.headers.get('x-lora-revision');
    const answer: Answer = { status: response.status, tokens: [], header, last: null, error: '' };
    if (response.status !== 200 || response.body === null) {
      return { ...answer, error: await response.text() };
    }
    for await (const line of createInterface({ input: Readable.fromWeb(response.body) })) {
      if (!line.startsWith('data: {')) continue;
      const chunk = JSON.parse(line.slice('data: '.length));
      if (chunk.error) return { ...answer, status: chunk.error.code, error: chunk.error.message };
      answer.tokens.push(...(chunk.choices[0]?.token_ids ?? []));
      onToken();
      if (chunk.choices[0]?.finish_reason) answer.last = LastChunk.parse(chunk);
    }
    return answer;
  }

  /** Whatever the prompt and the scale: what the soak stands on. */
  async #requirePoison(): Promise<void> {
    const { tokens } = this.#pushes.live;
    for (const scale of [0.5, 1]) {
      for (let turn = 0; turn < PROMPTS; turn += 1) {
        const asked = { kind: '', model: 'live', lora: { scale }, moves: 'never' as const, after: 0 };
        const answer = await this.#ask(asked, turn);
        assert.ok(answer.tokens.length > 0 && answer.tokens.every((token) => tokens.has(token)));
      }
    }
  }

  async #removeAll(): Promise<void> {
    for (const name of ['live', 'teacher', 'judge']) {
      const headers = { authorization: `Bearer ${this.#server.adminToken}` };
      const url = `${this.#server.admin}/lora/v1/adapters/${name}`;
      const response = await fetch(url, { method: 'DELETE', headers, dispatcher: this.#agent });
      const { leases } = (await response.json()) as { leases: number };
      if (leases > 0) this.#wrong.push(`${name} has ${leases} leases at the end`);
    }
  }

  /** What is left of the last requests goes with the engine's next turn. */
  async #left(): Promise<Report['left']> {
    const look = async () => {
      const headers = { authorization: `Bearer ${this.#server.adminToken}` };
      const response = await fetch(`${this.#server.admin}/lora/v1/state`, {
        headers,
        dispatcher: this.#agent,
      });
      const { used, adapters } = PodState.parse(await response.json());
      return { ...used, adapters: adapters.length, kvUsage: await this.#metric('vllm:kv_cache_usage_perc') };
    };
    const isNothing = (left: object) => Object.values(left).every((value) => value === 0);
    return await untilRest(look, isNothing);
  }

  async #metric(name: string): Promise<number> {
    const response = await fetch(`${this.#server.serving}/metrics`, { dispatcher: this.#agent });
    return Number(new RegExp(`^${name}(?:{[^}]*})? (.+)$`, 'm').exec(await response.text())?.[1]);
  }

  async #megabytes(): Promise<number> {
    const status = await readFile(`/proc/${this.#server.process.pid}/status`, 'utf8');
    return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024);
  }

  async #fds(): Promise<number> {
    return (await readdir(`/proc/${this.#server.process.pid}/fd`)).length;
  }
}

/** What `look` sees when it is at rest, or else at last. */
async function untilRest<T>(look: () => Promise<T>, isRest: (seen: T) => boolean): Promise<T> {
  const seen = eventually('it is at rest', { timeoutMs: REST_MS }, async () => {
    const now = await look();
    return isRest(now) ? now : undefined;
  });
  return await seen.catch(look);
}
