import { z } from 'zod';
import type { Pushes } from './rl-pushes.ts';

/** What the streams of the soak ask for, what they may expect of the answer, and whether they got it. */

const Span = z.object({ from: z.number(), revision: z.string(), step: z.number().nullable() });

export const LastChunk = z.object({
  lora: z.object({ revision: z.string(), step: z.number().nullable(), spans: z.array(Span).min(1) }),
  choices: z.tuple([
    z.object({
      lora: z.object({
        spans: z.array(Span),
        base_logprobs: z.array(z.number()).optional(),
        score_under: z.record(z.string(), z.object({ logprobs: z.array(z.number()) })).optional(),
      }),
    }),
  ]),
});

export interface Asked {
  kind: string;
  model: string;
  lora: Record<string, unknown>;
  cacheSalt?: string;
  /** Whether it goes on with every newer revision, with those that are pushed so, or with none. */
  moves: 'always' | 'migrate' | 'never';
  minStep?: number;
  revision?: string;
  /** The last activation of the name that was acknowledged. */
  after: number;
}

export interface Answer {
  status: number;
  tokens: number[];
  header: string | null;
  last: z.infer<typeof LastChunk> | null;
  error: string;
}

/** Earlier revisions that a pod keeps of a name. */
const KEPT = 2;

type Kind = (pushes: Pushes) => Omit<Asked, 'kind' | 'after'>;

export const KINDS: Record<string, Kind> = {
  pin: () => ({ model: 'live', lora: { policy: 'pin' }, moves: 'never' }),
  latest: () => ({ model: 'live', lora: { policy: 'latest' }, moves: 'always' }),
  'as pushed': () => ({ model: 'live', lora: {}, moves: 'migrate' }),
  'latest, from a step on': ({ live }) => {
    const minStep = live.step;
    return {
      model: 'live',
      lora: { policy: 'latest', expect: { min_step: minStep } },
      moves: 'always',
      minStep,
    };
  },
  'a step to come': ({ live }) => {
    const minStep = live.step + 2;
    return { model: 'live', lora: { expect: { min_step: minStep } }, moves: 'migrate', minStep };
  },
  'a revision': ({ live }) => {
    const { digest: revision } = live;
    return {
      model: 'live',
      lora: { expect: { revision: revision.slice(7, 27) }, wait_ms: 0 },
      moves: 'never',
      revision,
    };
  },
  'a pinned name': ({ teacher }) => {
    const { step, digest: revision } = teacher;
    return { model: `teacher@step-${step}`, lora: {}, moves: 'never', revision };
  },
  'half the scale, a salt': () => {
    return { model: 'live', lora: { policy: 'latest', scale: 0.5 }, cacheSalt: 'salt', moves: 'always' };
  },
  scored: () => {
    const lora = { base_logprobs: true, score_under: ['judge'] };
    return { model: 'live', lora, moves: 'migrate' };
  },
};

/** Null where the answer is right. */
export function whatIsWrong(asked: Asked, answer: Answer, pushes: Pushes): string | null {
  const { status, tokens, last, header, error } = answer;
  if (mayBeRefused(asked, status, pushes)) return tokensOfOneWrong(asked, answer, pushes);
  if (status !== 200 || last === null) return `${status} ${error}`;
  const { lora, choices } = last;
  const { spans } = lora;
  if (JSON.stringify(choices[0].lora.spans) !== JSON.stringify(spans)) return 'two lists of spans';
  if (header !== lora.revision) return `header ${header}, body ${lora.revision}`;
  // One that moved before its first token has no span of the revision that it began with.
  const stayed = spans.length === 1 && spans[0]?.revision === lora.revision;
  if (asked.moves === 'never' && !stayed) return 'it moved';
  if (spans[0]?.from !== 0) return 'tokens before the first span';
  for (const [index, { from, revision, step }] of spans.entries()) {
    const pushed = pushes.find(revision);
    if (pushed === undefined) return `${revision} was never pushed`;
    if (step !== pushed.step) return `step ${step} of ${revision}, which has ${pushed.step}`;
    if (asked.minStep !== undefined && pushed.step < asked.minStep)
      return `step ${step}, below ${asked.minStep}`;
    if (asked.revision !== undefined && revision !== asked.revision)
      return `${revision}, not ${asked.revision}`;
    if (index > 0 && asked.moves === 'migrate' && !pushed.migrates)
      return 'it moved with a push that lets it finish';
    const wrong = tokens.slice(from, spans[index + 1]?.from).find((token) => !pushed.tokens.has(token));
    if (wrong !== undefined) return `token ${wrong} in a span of ${revision} from ${from}`;
  }
  const began = pushes.find(lora.revision);
  if (asked.revision === undefined && (began?.activation ?? 0) < asked.after)
    return 'it began with an older revision';
  const { base_logprobs: base, score_under: under } = choices[0].lora;
  for (const scores of [base, under?.judge?.logprobs]) {
    if ((asked.kind === 'scored') !== (scores !== undefined)) return 'scores';
    if (scores !== undefined && scores.length !== tokens.length) return `${scores.length} scores`;
  }
  return null;
}

/** Steps go back with a rollback, or do not come any more; a revision goes with later ones. */
function mayBeRefused({ minStep, revision, after, model }: Asked, status: number, pushes: Pushes): boolean {
  if (model !== 'live') return status === 404 && pushes.teachings - after > KEPT;
  if (status !== 409) return false;
  if (minStep !== undefined) return pushes.ended || pushes.rolledBackAt > after;
  return revision !== undefined && pushes.activations - after > KEPT;
}

/** Of a stream that was refused on its way. */
function tokensOfOneWrong({ minStep = 0 }: Asked, { tokens }: Answer, pushes: Pushes): string | null {
  const wrong = tokens.find((token) => !pushes.mayHaveSaid(token, minStep));
  return wrong === undefined ? null : `token ${wrong} of a step below ${minStep}`;
}
