import { z } from 'zod';
import { type Bench, path } from '../bench.ts';
import { type Check, must, needing, should } from '../check.ts';
import type { Answer } from '../client.ts';
import { EventStream } from '../event-stream.ts';
import {
  requireAnswer,
  requireFields,
  requireSame,
  requireStatus,
  requireThat,
  Skipped,
  Unmet,
} from '../expectations.ts';

const Span = z.object({ from: z.number(), revision: z.string(), step: z.number().nullable() });
const Lora = z.object({
  name: z.string(),
  revision: z.string(),
  step: z.number().nullable(),
  spans: z.array(Span),
});
const Completion = z.object({
  choices: z.array(z.object({ text: z.string() })).min(1),
  lora: Lora.nullable(),
});
const Chunk = z.object({ lora: Lora.nullish() });
const Models = z.object({
  data: z.array(
    z.object({
      id: z.string(),
      parent: z.string().nullish(),
      revision: z.string().optional(),
      step: z.number().nullish(),
      max_model_len: z.number().optional(),
    }),
  ),
});

const COMPLETIONS = '/v1/completions';
const PROMPT = 'Once upon a time';
/** Of answers that something is to happen amid, the second where the first is not long enough. */
const LONG_TOKENS = [500, 4000] as const;
const STREAM_MS = 120_000;

const RUNS: Check[] = [
  must(
    'serving-revision',
    'An answer says which revision made it, in its headers and as `lora`.',
    async (bench) => {
      const name = bench.name();
      const revision = await bench.putNew(name, { 'x-lora-step': '7' });
      const answer = await complete(bench, name);
      const { lora } = requireAnswer(answer, Completion);
      requireFields('headers', answer.headers, { 'x-lora-revision': revision, 'x-lora-step': '7' });
      requireSame('lora', lora, { name, revision, step: 7, spans: [{ from: 0, revision, step: 7 }] });
    },
  ),

  must(
    'serving-base',
    "The base's answers have `lora` null, and no revision in their headers.",
    async (bench) => {
      const answer = await complete(bench, bench.before.baseModel.name);
      requireSame('lora', requireAnswer(answer, Completion).lora, null);
      requireSame('x-lora-revision', answer.headers['x-lora-revision'], undefined);
    },
  ),

  must(
    'serving-unknown',
    'An unknown name is 404, and so is one that was staged only or removed: never the base.',
    async (bench) => {
      const [unknown, staged, removed] = [bench.name(), bench.name(), bench.name()];
      await bench.stageNew(staged);
      await bench.putNew(removed);
      await bench.admin.call('DELETE', path.adapter(removed));
      for (const name of [unknown, staged, removed]) requireStatus(await complete(bench, name), 404);
    },
  ),

  must(
    'serving-new-at-once',
    'A request after the reply to an activation runs on its revision.',
    async (bench) => {
      const name = bench.name();
      for (let i = 0; i < 5; i++) {
        const revision = await bench.putNew(name);
        requireSame(
          'revision',
          requireAnswer(await complete(bench, name), Completion).lora?.revision,
          revision,
        );
      }
    },
  ),

  must(
    'serving-pin',
    'A name with @ and a step or the first digits of a digest pins a kept revision.',
    async (bench) => {
      const name = bench.name();
      const first = await bench.putNew(name, { 'x-lora-step': '1' });
      await bench.putNew(name, { 'x-lora-step': '2' });
      const digits = first.slice('sha256:'.length, 'sha256:'.length + 12);
      for (const pin of ['step-1', digits]) {
        const { lora } = requireAnswer(await complete(bench, `${name}@${pin}`), Completion);
        requireSame(`revision of @${pin}`, lora?.revision, first);
      }
      requireStatus(await complete(bench, `${name}@step-9`), 404);
    },
  ),

  must(
    'serving-expect',
    'A request that expects another revision or a later step is 409, and gets no token.',
    async (bench) => {
      const name = bench.name();
      const revision = await bench.putNew(name, { 'x-lora-step': '4' });
      const other = bench.adapters.make().digest;
      const expecting = (expect: string) =>
        complete(bench, name, { 'x-lora-expect': expect, 'x-lora-wait-ms': '0' });
      const digits = (digest: string) => digest.slice('sha256:'.length);
      for (const met of [`revision=${digits(revision)}`, 'min_step=4'])
        requireStatus(await expecting(met), 200);
      for (const unmet of [`revision=${digits(other)}`, 'min_step=5'])
        requireStatus(await expecting(unmet), 409);
    },
  ),

  must(
    'serving-models',
    'The list of models has each adapter, with its parent, revision and step.',
    async (bench) => {
      const name = bench.name();
      const revision = await bench.putNew(name, { 'x-lora-step': '3' });
      const { data } = requireAnswer(await bench.serving.call('GET', '/v1/models'), Models);
      const { baseModel } = bench.before;
      const found = data.find(({ id }) => id === name);
      requireThat(
        found !== undefined,
        `${name} among the models`,
        data.map(({ id }) => id),
      );
      requireFields('the model', found, { parent: baseModel.name, revision, step: 3 });
    },
  ),

  must(
    'serving-swap',
    'A request that began before a swap ends on its revision; one after it has the new one.',
    amid(async (bench, tokens) => {
      const name = bench.name();
      const first = await bench.putNew(name);
      const running = await begin(bench, name, tokens);
      const second = running.requireUnder(await bench.putNew(name));
      const { lora } = requireAnswer(await complete(bench, name), Completion);
      requireSame('revision of a request after the swap', lora?.revision, second);
      requireSame('revisions of the running request', revisionsOf(await running.end()), [first]);
    }),
  ),

  should(
    'serving-migrate',
    'Where the activation says Migrate, a running request goes on with the new revision, and says from where.',
    amid(async (bench, tokens) => {
      if (bench.before.limits.slots < 2) throw new Skipped('with one slot there is no room to migrate to');
      const name = bench.name();
      const first = await bench.putNew(name);
      const running = await begin(bench, name, tokens);
      const second = running.requireUnder(await bench.putNew(name, { 'x-lora-in-flight': 'Migrate' }));
      requireSame('revisions of the running request', revisionsOf(await running.end()), [first, second]);
    }),
  ),

  must(
    'serving-removal',
    'DELETE of what runs is 202 with its leases; it ends on its revision, and then is gone.',
    amid(async (bench, tokens) => {
      const name = bench.name();
      const digest = await bench.putNew(name);
      const running = await begin(bench, name, tokens);
      const answer = await bench.admin.call('DELETE', path.adapter(name));
      const removal = running.requireUnder(answer);
      requireStatus(removal, 202);
      requireStatus(await complete(bench, name), 404);
      requireSame('revisions of the running request', revisionsOf(await running.end()), [digest]);
      await bench.eventually(
        `no ${name} in the state`,
        async () => (await bench.stateOf(name)) === undefined,
      );
    }),
  ),

  should(
    'serving-leases',
    'While a request runs, the state tells of its lease.',
    amid(async (bench, tokens) => {
      const name = bench.name();
      await bench.putNew(name);
      const running = await begin(bench, name, tokens);
      const { revisions } = await bench.stateOfHeld(name);
      running.requireUnder(null);
      requireSame(
        'leases',
        revisions.map(({ leases }) => leases),
        [1],
      );
      await running.end();
    }),
  ),
];

export const SERVING: Check[] = needing('serving', RUNS);

function complete(bench: Bench, model: string, headers: Record<string, string> = {}): Promise<Answer> {
  const body = { model, prompt: PROMPT, max_tokens: 2, temperature: 0, ignore_eos: true };
  return bench.serving.call('POST', COMPLETIONS, { headers, body });
}

function amid(look: (bench: Bench, tokens: number) => Promise<void>): Check['run'] {
  const [short, long] = LONG_TOKENS;
  return async (bench) => {
    try {
      await look(bench, short);
    } catch (error) {
      if (!(error instanceof Skipped)) throw error;
      await look(bench, long);
    }
  };
}

/** A stream of a long answer, whose first token has come. */
async function begin(bench: Bench, model: string, tokens: number): Promise<Running> {
  const { data } = requireAnswer(await bench.serving.call('GET', '/v1/models'), Models);
  const longest = data.find(({ max_model_len: tokens }) => tokens !== undefined)?.max_model_len ?? 2 * tokens;
  const body = {
    model,
    prompt: PROMPT,
    max_tokens: Math.min(tokens, Math.floor(longest * 0.75)),
    temperature: 0,
    ignore_eos: true,
    stream: true,
    stream_options: { include_usage: true },
  };
  const stream = await EventStream.open(bench.serving, COMPLETIONS, { method: 'POST', body });
  await stream.next('a first token', STREAM_MS);
  return new Running(stream);
}

class Running {
  readonly #stream: EventStream;

  constructor(stream: EventStream) {
    this.#stream = stream;
  }

  /** What was answered while the request still ran; where it did not, there is nothing to be seen. */
  requireUnder<T>(answer: T): T {
    if (!this.#stream.hasEnded) return answer;
    throw new Skipped('the answer was over before it could be seen running');
  }

  /** The last `lora` of the stream. */
  async end(): Promise<z.infer<typeof Lora>> {
    let last: z.infer<typeof Lora> | null = null;
    for (;;) {
      const { data } = await this.#stream.next('the end of the answer', STREAM_MS);
      if (data === '[DONE]') break;
      last = Chunk.safeParse(JSON.parse(data)).data?.lora ?? last;
    }
    if (last === null) throw new Unmet('a last chunk with `lora`', 'none with it');
    return last;
  }
}

function revisionsOf({ spans }: z.infer<typeof Lora>): string[] {
  return spans.map(({ revision }) => revision);
}
