import type { Agent } from 'undici';
import { fetch } from 'undici';
import type { ServerProcess } from '../support/server-process.ts';
import { type Poison, poison } from './poison.ts';

/** A revision that was pushed. */
export interface Pushed extends Poison {
  step: number;
  migrates: boolean;
  /** The last activation that made it current, or was to. */
  activation: number;
}

const TEACHER_EVERY = 10;
/** So that its steps are no others'. */
const TEACHER_STEPS = 1_000_000;

/** A trainer that pushes poison as fast as it can to `live`, now and then to `teacher` */
export class Pushes {
  readonly #server: ServerProcess;
  readonly #agent: Agent;
  readonly #known = new Map<string, Pushed>();
  /** Acknowledged. */
  live!: Pushed;
  teacher!: Pushed;
  /** How many were asked for. */
  activations = 0;
  teachings = 0;
  /** The last activation that was a rollback. */
  rolledBackAt = -1;
  ended = false;
  #before!: Pushed;

  constructor(server: ServerProcess, agent: Agent) {
    this.#server = server;
    this.#agent = agent;
  }

  find(digest: string): Pushed | undefined {
    return this.#known.get(digest);
  }

  /** Whether a revision from this step on has the token. */
  mayHaveSaid(token: number, minStep: number): boolean {
    return [...this.#known.values()].some(({ step, tokens }) => step >= minStep && tokens.has(token));
  }

  /** Never changes. */
  async pushJudge(): Promise<void> {
    await this.#put('judge', poison(0, 0), { step: 0, migrates: false, activation: 1 });
  }

  async push(step: number): Promise<void> {
    if (step % TEACHER_EVERY === 1) {
      const teacher = { step: step + TEACHER_STEPS, migrates: false, activation: ++this.teachings };
      this.teacher = await this.#put('teacher', poison(teacher.step, teacher.step), teacher);
    }
    const live = { step, migrates: step % 3 === 0, activation: ++this.activations };
    const pushed = await this.#put('live', poison(step, step), live);
    this.#before = this.live;
    this.live = pushed;
  }

  /** To what was current before. */
  async rollBack(): Promise<void> {
    const back = this.#before;
    back.activation = ++this.activations;
    this.rolledBackAt = this.activations;
    const body = JSON.stringify({ to: back.digest });
    await this.#call('POST', '/lora/v1/adapters/live/rollback', body, { 'content-type': 'application/json' });
    this.live = back;
  }

  async #put(name: string, made: Poison, terms: Omit<Pushed, keyof Poison>): Promise<Pushed> {
    const pushed = { ...made, ...terms };
    this.#known.set(pushed.digest, pushed);
    const reply = await this.#call('PUT', `/v1/adapters/${name}`, made.tensors, {
      'content-type': 'application/octet-stream',
      'x-lora-config': made.config.toString('base64url'),
      'x-lora-step': String(terms.step),
      'x-lora-in-flight': terms.migrates ? 'Migrate' : 'Finish',
    });
    if (reply.revision !== pushed.digest)
      throw new Error(`Pushed ${pushed.digest}: ${JSON.stringify(reply)}`);
    return pushed;
  }

  async #call(
    method: string,
    path: string,
    body: string | Buffer,
    headers: Record<string, string>,
  ): Promise<{ revision?: string }> {
    const { admin, adminToken } = this.#server;
    const response = await fetch(`${admin}${path}`, {
      method,
      body,
      headers: { authorization: `Bearer ${adminToken}`, ...headers },
      dispatcher: this.#agent,
    });
    const reply = (await response.json()) as { revision?: string };
    if (response.status !== 200)
      throw new Error(`${method} ${path}: ${response.status} ${JSON.stringify(reply)}`);
    return reply;
  }
}
