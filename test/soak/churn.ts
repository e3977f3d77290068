import assert from 'node:assert/strict';
import type { GenerateRequest, Policy } from '../../native/types.ts';
import {
  type Adapter,
  BASE,
  type Generated,
  goldenCases,
  randomAdapter,
  randomNumbers,
  TestEngine,
} from '../native/support.ts';
import { Oracle } from './oracle.ts';

/**
 * A great many short requests while names swap A → B → A: every token is what the revision that is reported for it says
 * alone. Few blocks of keys and values, so that prefixes are shared, evicted and computed anew, and requests preempted.
 */

/** Small, and not one of the fixtures that say the same token over and over. */
const MODEL = 'mistral';
const LIVE = 96;
const SWAP_EVERY = 40;
const REVISIONS = 3;
const SCALES = [1, 1, 1, 0.5, 0];
const SALTS = ['', '', 'a'];
const POLICIES: Policy[] = ['pin', 'latest', 'activation', 'latest'];
const AFTER_ATTENTION = ['o_proj', 'gate_proj', 'up_proj', 'down_proj'];
/** Of what is asked on, too. */
const PROMPT_TOKENS_MAX = 80;
const SAY_EVERY = 10_000;
const PROMPTS_MIN = 8;
const KV_BLOCKS = 40;
const TOKENS_MAX = 24;

/**
 * `late`: revisions whose keys and values are the base's, so that what a request says after a move can be foretold.
 * `deep`: revisions of which every key and value is their own; after a move nothing is foretold, as a part of the prompt may be
 * computed by then.
 */
const NAMES = ['late', 'deep'] as const;
type Name = (typeof NAMES)[number];

export interface ChurnReport {
  requests: number;
  tokens: number;
  moves: number;
  preemptions: number;
  foundTokens: number;
  asked: number;
  seconds: number;
}

interface ChurnOptions {
  /** How many in all, or for how long. */
  requests?: number;
  seconds?: number;
  seed?: number;
  say?: (line: string) => void;
}

export async function churn(options: ChurnOptions): Promise<ChurnReport> {
  await using served = await TestEngine.open(MODEL, {
    kvBytes: await kvBytes(),
    maxBatch: 32,
    prefixCache: true,
  });
  await using alone = await TestEngine.open(MODEL, { prefixCache: false });
  for (const engine of [served, alone]) {
    for (const name of NAMES) {
      for (let index = 0; index < REVISIONS; index += 1) {
        const { body, modules } = adapter(engine, name, index);
        await engine.engine.stage(`${name}${index}`, body, modules);
      }
    }
  }
  return await new Churn(served, new Oracle(alone), options).run();
}

async function kvBytes(): Promise<number> {
  await using probe = await TestEngine.open(MODEL, { kvBytes: 1 << 20 });
  return Math.ceil((KV_BLOCKS * (1 << 20)) / probe.engine.info.kvBlocks);
}

function adapter({ model }: TestEngine, name: Name, index: number): Adapter {
  const { body, modules } = randomAdapter(model, { rank: 4, seed: 10 * NAMES.indexOf(name) + index + 1 });
  const last = model.geometry.layers - 1;
  if (name === 'deep') return { body, modules: modules.map((module) => ({ ...module, scale: 20 })) };
  const late = modules.filter(({ layer, module }) => layer === last && AFTER_ATTENTION.includes(module));
  return { body, modules: late.map((module) => ({ ...module, scale: 30 })) };
}

type Asked = Pick<
  GenerateRequest,
  'prompt' | 'target' | 'policy' | 'loraScale' | 'cacheSalt' | 'maxTokens' | 'stopTokens'
>;

class Churn {
  readonly #served: TestEngine;
  readonly #oracle: Oracle;
  readonly #options: Required<ChurnOptions>;
  readonly #random: () => number;
  readonly #followUps: Asked[] = [];
  #prompts: number[][] = [];
  #requests = 0;
  #tokens = 0;
  #moves = 0;
  #swaps = 0;

  constructor(served: TestEngine, oracle: Oracle, options: ChurnOptions) {
    this.#served = served;
    this.#oracle = oracle;
    this.#options = {
      requests: Number.POSITIVE_INFINITY,
      seconds: Number.POSITIVE_INFINITY,
      seed: 1,
      say: () => undefined,
      ...options,
    };
    this.#random = randomNumbers(this.#options.seed);
  }

  async run(): Promise<ChurnReport> {
    const beganMs = performance.now();
    this.#prompts = await this.#tellingPrompts();
    for (const name of NAMES) await this.#served.engine.activate(name, `${name}0`, false);
    const isOver = () =>
      this.#requests >= this.#options.requests || performance.now() - beganMs > 1000 * this.#options.seconds;
    await Promise.all(
      Array.from({ length: LIVE }, async () => {
        while (!isOver()) await this.#one();
      }),
    );
    const { engine } = this.#served;
    const { preemptions, prefixTokensHit, kvBlocksUsed, running, waiting, slots } = engine.snapshot();
    assert.deepEqual({ kvBlocksUsed, running, waiting }, { kvBlocksUsed: 0, running: 0, waiting: 0 });
    for (const { leases } of slots) assert.equal(leases, 0);
    return {
      requests: this.#requests,
      tokens: this.#tokens,
      moves: this.#moves,
      preemptions,
      foundTokens: prefixTokensHit,
      asked: this.#oracle.asked,
      seconds: Math.round((performance.now() - beganMs) / 1000),
    };
  }

  /** After which each revision says something else: else a token of the wrong revision would be right. */
  async #tellingPrompts(): Promise<number[][]> {
    const revisions = NAMES.flatMap((name) => Array.from({ length: REVISIONS }, (_, index) => name + index));
    const telling: number[][] = [];
    for (const prompt of prompts()) {
      const said = [null, ...revisions].map((revision) =>
        this.#oracle.says(prompt, { revision, scale: 1, count: TOKENS_MAX }),
      );
      const answers = new Set((await Promise.all(said)).map((tokens) => tokens.join()));
      if (answers.size === said.length) telling.push(prompt);
    }
    assert.ok(telling.length >= PROMPTS_MIN, `${telling.length} prompts`);
    return telling;
  }

  async #one(): Promise<void> {
    this.#requests += 1;
    if (this.#requests % SWAP_EVERY === 0) await this.#swap();
    if (this.#requests % SAY_EVERY === 0)
      this.#options.say(`${this.#requests} requests, ${this.#moves} moves`);
    const request = this.#followUps.pop() ?? this.#request();
    const generated = await this.#served.generate(request);
    assert.equal(generated.tokens.length, request.maxTokens);
    await this.#check(request, generated);
    if (generated.moves.length > 0 && request.prompt.length < PROMPT_TOKENS_MAX)
      this.#followUp(request, generated);
  }

  #request(): Asked {
    const name = this.#pick([...NAMES, ...NAMES, null]);
    return {
      prompt: this.#pick(this.#prompts),
      target: name === null ? BASE : { kind: 'adapter', name },
      policy: this.#pick(POLICIES),
      loraScale: this.#pick(SCALES),
      cacheSalt: this.#pick(SALTS),
      maxTokens: this.#pick([1, 2, 3, 4, 4, TOKENS_MAX]),
      stopTokens: [],
    };
  }

  /** What has keys and values of two revisions must be found under neither. */
  #followUp(request: Asked, { revision, moves, tokens }: Generated): void {
    for (const digest of new Set([revision, ...moves.map((move) => move.revision)])) {
      const target = { kind: 'revision' as const, digest: digest as string };
      this.#followUps.push({ ...request, target, prompt: [...request.prompt, ...tokens], maxTokens: 1 });
    }
  }

  /** Each token by the revision that was reported for it; of a deep one that moved, those up to its move. */
  async #check(
    { prompt, policy, loraScale, maxTokens }: Asked,
    { revision, moves, tokens }: Generated,
  ): Promise<void> {
    this.#moves += moves.length;
    if (policy === 'pin') assert.deepEqual(moves, []);
    const spans = [{ from: 0, revision }, ...moves];
    for (const [index, { from, revision: current }] of spans.entries()) {
      const isForetold = index === 0 || loraScale === 0 || current?.startsWith('late');
      if (!isForetold) return;
      const said = tokens.slice(from, spans[index + 1]?.from);
      if (said.length === 0) continue;
      const after = [...prompt, ...tokens.slice(0, from)];
      const isOfMany = from === 0 && this.#prompts.includes(prompt);
      const count = isOfMany ? TOKENS_MAX : maxTokens - from;
      const right = await this.#oracle.says(after, { revision: current, scale: loraScale, count });
      const what = `${current} at ${loraScale} after ${prompt.length} and ${from} tokens, ${JSON.stringify(moves)}`;
      assert.deepEqual(said, right.slice(0, said.length), what);
      this.#tokens += said.length;
    }
  }

  /** A → B → A → C and so on: what was computed before is found again. */
  async #swap(): Promise<void> {
    this.#swaps += 1;
    const name = NAMES[this.#swaps % NAMES.length] as Name;
    const turn = Math.floor(this.#swaps / NAMES.length);
    const index = turn % 2 === 0 ? 0 : 1 + (((turn - 1) / 2) % (REVISIONS - 1));
    await this.#served.engine.activate(name, `${name}${index}`, turn % 3 === 0);
  }

  #pick<T>(items: readonly T[]): T {
    return items[Math.floor(this.#random() * items.length)] as T;
  }
}

/** Beginnings of the same texts, short of a block and beyond one, so that answers fill blocks. */
function prompts(): number[][] {
  const ids = goldenCases(MODEL).flatMap((golden) => golden.ids);
  return [0, 100, 200].flatMap((from) => [9, 13, 30, 34, 47].map((length) => ids.slice(from, from + length)));
}
