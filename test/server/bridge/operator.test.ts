import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Asked, readAsked } from '../../../operator/push/asked.ts';
import { revisionDigest } from '../../../server/contract/digest.ts';
import { type ErrorCode, LorikeetError } from '../../../server/contract/errors.ts';
import { decodeConfig } from '../../../server/contract/headers.ts';
import { answerOf, closeWith } from '../../../server/transfer/refusal.ts';
import { urlOf } from '../../../server/transfer/tls-files.ts';
import { sha256 } from '../../support/adapter-files.ts';
import { type Issued, SecretVolume, TestCa } from '../../support/certificates.ts';
import { type ParrotServer, startParrot } from '../../support/parrot-server.ts';
import { bridge, type TestBridge } from './start.ts';

const SKEW_MS = 7.5;

/** An operator that reads pushes as the real one does, and has one pod. */
class ScriptedOperator {
  readonly calls: {
    line: string;
    authorization: string | undefined;
    traceId: string | undefined;
    asked: Asked | null;
  }[] = [];
  /** Of the next pushes. */
  refusals: ErrorCode[] = [];
  servedName = 'team-policy';
  lie: string | null = null;
  readonly #pod: ParrotServer;
  readonly #server: Server;

  constructor(pod: ParrotServer, tls: Issued | null = null) {
    this.#pod = pod;
    const answer = (request: IncomingMessage, response: ServerResponse) => {
      this.#answer(request, response).catch((error: unknown) => {
        // As the operator refuses a body that it does not read.
        closeWith(request.socket, answerOf(error as LorikeetError));
      });
    };
    this.#server = tls === null ? createServer(answer) : createSecureServer(tls, answer);
  }

  async start(): Promise<void> {
    await new Promise<void>((done) => this.#server.listen(0, '127.0.0.1', done));
  }

  get url(): string {
    return urlOf(this.#server);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { authorization, traceparent } = request.headers;
    const traceId = traceparent?.toString().split('-')[1];
    const { pathname, searchParams } = new URL(request.url ?? '', this.url);
    const isPush = request.method === 'PUT';
    const asked = isPush ? readAsked(request, Object.fromEntries(searchParams)) : null;
    this.calls.push({ line: `${request.method} ${pathname}`, authorization, traceId, asked });
    if (asked === null)
      return this.#send(response, { servedName: this.servedName, desired: null, revisions: [] });
    const refused = this.refusals.shift();
    if (refused !== undefined) throw new LorikeetError(refused, `refused: ${refused}`);
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    expect([body.length, sha256(body)]).toEqual([asked.declaredBytes, asked.sha256]);
    const config = asked.config ?? '';
    const put = await fetch(`${this.#pod.admin}/v1/adapters/${this.servedName}`, {
      method: 'PUT',
      headers: {
        authorization: `Bearer ${this.#pod.token}`,
        'x-lora-config': config,
        'x-lora-step': `${asked.step}`,
      },
      body,
    });
    expect(put.status).toBe(200);
    const revision = this.lie ?? revisionDigest(JSON.parse(decodeConfig(config).toString()), sha256(body));
    const swap = { durationMs: 10, skewMs: SKEW_MS };
    this.#send(response, {
      revision,
      step: asked.step,
      bytes: body.length,
      noop: false,
      pods: [],
      swap,
      timings: {},
    });
  }

  #send(response: ServerResponse, body: object): void {
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  }
}

let pod: ParrotServer;
beforeAll(async () => {
  pod = await startParrot(['--vllm-api']);
});
afterAll(() => pod.close());

let operator: ScriptedOperator;
const closing: { close(): Promise<void> }[] = [];
beforeEach(async () => {
  operator = new ScriptedOperator(pod);
  await operator.start();
  closing.push(operator);
});
afterEach(async () => {
  for (const each of closing.splice(0).reverse()) await each.close();
});

async function open(path: string, args: string[] = []): Promise<TestBridge> {
  const opened = await bridge({ push: [operator.url + path], serving: [pod.serving] }, args);
  closing.push(opened);
  return opened;
}

const load = (server: TestBridge, name: string, fixture = 'sql') =>
  server.post('/v1/load_lora_adapter', { lora_name: name, lora_path: server.save(name, fixture) });
const complete = (server: TestBridge, model: string) =>
  server.post('/v1/completions', { model, prompt: 'Show me hotels', max_tokens: 2 });
const pushes = () => operator.calls.filter(({ line }) => line.startsWith('PUT'));

/** Steps only grow, in all tests. */
let step = 0;

it('--push-ca-file says by whom the certificate of an operator may be signed', async () => {
  const ca = new TestCa();
  const volume = new SecretVolume();
  volume.put({ 'ca.crt': ca.certificate });
  operator = new ScriptedOperator(pod, ca.issue('IP:127.0.0.1'));
  await operator.start();
  closing.push(operator);
  step += 1;
  const server = await open('/v1/namespaces/team-a', ['--push-ca-file', volume.path('ca.crt')]);
  expect((await load(server, `policy-v${step}`)).status).toBe(200);
  expect(pushes()).toHaveLength(1);
  ca.remove();
  volume.remove();
});

describe("an operator's namespace", () => {
  it('takes a version as a step of the LoraAdapter of its name, which pods serve under another', async () => {
    step += 1;
    const server = await open('/v1/namespaces/team-a');
    expect((await load(server, `policy-v${step}`)).status).toBe(200);
    expect(operator.calls.map(({ line }) => line)).toEqual([
      'GET /v1/namespaces/team-a/adapters/policy/revisions',
      'PUT /v1/namespaces/team-a/adapters/policy/revisions',
    ]);
    const [push] = pushes();
    // The trainer's load names none: all that follows from it has one all the same.
    expect(push?.traceId).toMatch(/^[0-9a-f]{32}$/);
    expect(new Set(operator.calls.map(({ traceId }) => traceId))).toEqual(new Set([push?.traceId]));
    expect(push).toMatchObject({
      authorization: `Bearer ${pod.token}`,
      asked: { step, wait: 'active', timeoutMs: 30_000, allow: ['zero_effect'], ifMatch: null },
    });
    const { status, headers, body } = await complete(server, `policy-v${step}`);
    expect([status, body.lora.name, headers.get('x-lora-step')]).toEqual([200, 'team-policy', String(step)]);
    expect(server.logged('synced')[0]?.skewMs).toBeGreaterThanOrEqual(SKEW_MS);
  });

  it('is asked again where it says that it passes', async () => {
    step += 1;
    operator.refusals = ['not_leader', 'not_leader'];
    const server = await open('/v1/namespaces/team-a');
    expect((await load(server, `policy-v${step}`)).status).toBe(200);
    expect(pushes()).toHaveLength(3);
  });

  it.each<[ErrorCode, number, RegExp]>([
    ['step_not_newer', 400, /an operator takes newer steps only/],
    ['adapter_not_found', 400, /refused: adapter_not_found/],
    ['rank_too_large', 400, /refused: rank_too_large/],
    ['forbidden', 502, /The push failed: refused: forbidden/],
    ['pod_failed', 502, /The push failed: refused: pod_failed/],
  ])('that answers %s: %d, at once', async (code, status, says) => {
    operator.refusals = [code];
    const server = await open('/v1/namespaces/team-a');
    const answered = await load(server, `policy-v${step + 1}`);
    expect([answered.status, answered.body.error.message]).toEqual([status, expect.stringMatching(says)]);
    expect(pushes()).toHaveLength(1);
    expect((await complete(server, `policy-v${step + 1}`)).status).toBe(404);
  });

  it('that took in something else is not believed', async () => {
    step += 1;
    operator.lie = `sha256:${'b'.repeat(64)}`;
    const server = await open('/v1/namespaces/team-a');
    const { status, body } = await load(server, `policy-v${step}`);
    expect([status, body.error.message]).toEqual([502, expect.stringMatching(/the answer is of sha256:bbb/)]);
  });

  it('keeps what it has when the last name is unloaded', async () => {
    step += 1;
    const server = await open('/v1/namespaces/team-a');
    await load(server, `policy-v${step}`);
    const before = operator.calls.length;
    const { status } = await server.post('/v1/unload_lora_adapter', { lora_name: `policy-v${step}` });
    expect([status, operator.calls.length]).toEqual([200, before]);
    expect((await complete(server, `policy-v${step}`)).status).toBe(404);
    expect((await pod.get('/v1/models/team-policy')).status).toBe(200);
  });

  it("may not serve a LoraAdapter under the base model's name", async () => {
    operator.servedName = 'parrot';
    const server = await open('/v1/namespaces/team-a');
    const { status, body } = await load(server, 'policy-v1');
    expect([status, body.error.message]).toEqual([400, expect.stringMatching(/another servedName/)]);
    expect(pushes()).toEqual([]);
  });
});

describe('one LoraAdapter, as status.pushURL has it', () => {
  it('takes whatever the trainer calls its one adapter, and no other', async () => {
    step += 1;
    const server = await open('/v1/namespaces/team-a/adapters/live/revisions');
    expect((await load(server, `trl-policy-v${step}`)).status).toBe(200);
    expect(pushes().map(({ line }) => line)).toEqual(['PUT /v1/namespaces/team-a/adapters/live/revisions']);
    const { status, body } = await load(server, 'other-v1');
    expect([status, body.error.message]).toEqual([
      400,
      expect.stringMatching(/--push names one LoraAdapter/),
    ]);
    expect(pushes()).toHaveLength(1);
  });

  it('takes one under the name of the base, too: it shadows it', async () => {
    step += 1;
    const server = await open('/v1/namespaces/team-a/adapters/live/revisions');
    const { status } = await server.post('/load_lora_adapter', {
      lora_name: 'parrot',
      lora_path: server.save('parrot', 'pirate'),
    });
    expect(status).toBe(200);
    expect((await complete(server, 'parrot')).body.lora.name).toBe('team-policy');
    // One above what pods have already.
    expect(pushes()[0]?.asked?.step).toBe(step);
  });
});
