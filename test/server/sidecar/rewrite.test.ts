import { describe, expect, it } from 'vitest';
import { EventRewriter, rewriteRefusal, rewriteWhole } from '../../../server/sidecar/rewrite.ts';

const REVISION = `sha256:${'a'.repeat(64)}`;
const NAME = `lorikeet-${'a'.repeat(64)}`;
const lora = { name: 'sql', revision: REVISION, step: 3 };
const REWRITING = { asked: { model: NAME }, model: 'sql@step-3', lora };
const SAID = { ...lora, spans: [{ from: 0, revision: REVISION, step: 3 }] };

const event = (body: object) => `data: ${JSON.stringify(body)}\n\n`;
const token = (content: string, finish_reason: string | null = null) => ({
  model: NAME,
  choices: [{ index: 0, text: content, finish_reason }],
});

function rewritten(stream: string, bytes: number): { said: string; generated: number } {
  const all = Buffer.from(stream);
  const rewriter = new EventRewriter(REWRITING);
  const pieces: string[] = [];
  for (let at = 0; at < all.length; at += bytes) pieces.push(rewriter.rewrite(all.subarray(at, at + bytes)));
  return { said: [...pieces, rewriter.rest()].join(''), generated: rewriter.generatedTokens };
}

describe('a stream', () => {
  const usage = { model: NAME, choices: [], usage: { completion_tokens: 2 } };
  const stream = `${[token('grüß'), token('x', 'stop'), usage].map(event).join('')}data: [DONE]\n\n`;

  it.each([1, 7, 64, 100_000])(
    "says the client's name and the revision, in pieces of %i bytes",
    async (bytes) => {
      const { said, generated } = rewritten(stream, bytes);
      const events = said.trimEnd().split('\n\n');
      const [first, last, told] = events.slice(0, 3).map((line) => JSON.parse(line.slice('data: '.length)));
      expect(first).toEqual({ ...token('grüß'), model: 'sql@step-3' });
      expect(last).toEqual({
        ...token('x', 'stop'),
        model: 'sql@step-3',
        lora: SAID,
        weight_version: REVISION,
      });
      expect(told).toMatchObject({ lora: SAID, usage: { completion_tokens: 2 } });
      expect([events.at(-1), generated]).toEqual(['data: [DONE]', 2]);
    },
  );

  it('leaves text alone that looks like a field', async () => {
    const content = `"model":"${NAME}" "finish_reason":"stop" "usage":{`;
    const { said } = rewritten(event(token(content)), 1_000);
    expect(JSON.parse(said.slice('data: '.length))).toEqual({ ...token(content), model: 'sql@step-3' });
  });
});

describe('what SGLang calls the version of the weights is the revision', () => {
  const said = (version: string) => ({
    text: 'says "weight_version":"default"',
    meta_info: { weight_versions: [{ version, start: 0, end: 2 }], weight_version: version, version: 'v1' },
  });

  it('in an answer that comes at once', () => {
    const answer = rewriteWhole(Buffer.from(JSON.stringify([said('default'), said('default')])), REWRITING);
    expect(JSON.parse(answer.toString())).toEqual([said(REVISION), said(REVISION)]);
  });

  it('in a stream', () => {
    expect(rewritten(event(said('default')), 1_000).said).toBe(event(said(REVISION)));
  });

  it('but not where the base answers', () => {
    const base = Buffer.from(JSON.stringify(said('default')));
    expect(rewriteWhole(base, { ...REWRITING, lora: null })).toEqual(base);
  });
});

describe('an answer that comes at once', () => {
  it("has the client's name and the revision", () => {
    const answer = rewriteWhole(Buffer.from(JSON.stringify({ ...token('x', 'stop'), id: '1' })), REWRITING);
    expect(JSON.parse(answer.toString())).toEqual({
      ...token('x', 'stop'),
      id: '1',
      model: 'sql@step-3',
      lora: SAID,
      weight_version: REVISION,
    });
  });

  it.each(['[1]', '"text"', '{"tokens":[1]}', '{"model":"another"}', 'no JSON'])(
    'stays as it is: %s',
    (body) => {
      expect(rewriteWhole(Buffer.from(body), REWRITING).toString()).toBe(body);
    },
  );

  it("does not tell the engine's name where it is refused", () => {
    const refused = rewriteRefusal(Buffer.from(`{"error":"no model ${NAME}"}`), REWRITING);
    expect(refused.toString()).toBe('{"error":"no model sql@step-3"}');
  });
});
